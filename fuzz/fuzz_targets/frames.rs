#![no_main]
longsplice_fuzz::target!(frames);
