#![no_main]
longsplice_fuzz::target!(serving);
