#![no_main]
longsplice_fuzz::target!(regex);
