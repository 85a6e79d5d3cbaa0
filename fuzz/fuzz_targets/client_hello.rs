#![no_main]
longsplice_fuzz::target!(client_hello);
