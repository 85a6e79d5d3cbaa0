#![no_main]
longsplice_fuzz::target!(request_head);
