#![no_main]
longsplice_fuzz::target!(chunked);
