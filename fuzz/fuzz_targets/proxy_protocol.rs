#![no_main]
longsplice_fuzz::target!(proxy_protocol);
