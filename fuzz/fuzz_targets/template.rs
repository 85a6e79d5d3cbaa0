#![no_main]
longsplice_fuzz::target!(template);
