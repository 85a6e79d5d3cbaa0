#![no_main]
longsplice_fuzz::target!(close_frame);
