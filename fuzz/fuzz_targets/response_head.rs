#![no_main]
longsplice_fuzz::target!(response_head);
