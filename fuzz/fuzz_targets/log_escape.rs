#![no_main]
longsplice_fuzz::target!(log_escape);
