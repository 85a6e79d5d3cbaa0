#![no_main]
longsplice_fuzz::target!(values);
