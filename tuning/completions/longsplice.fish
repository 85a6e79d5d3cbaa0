complete -c longsplice -s c -d 'Configuration file, or a conf.d fragment [/etc/longsplice/longsplice.conf]' -r -F
complete -c longsplice -s p -d 'What log and pid files are relative to [the file\'s directory]' -r -F
complete -c longsplice -s g -d 'Directives of the main context, before those of the file' -r
complete -c longsplice -s e -d 'Error log where the file names none [stderr]' -r -F
complete -c longsplice -s s -d 'Signal the running process: `stop`, or `quit` after the last tunnel' -r -f -a "stop\t''
quit\t''"
complete -c longsplice -l listen -d 'PORT, ADDRESS:PORT or unix:PATH; may be given several times' -r
complete -c longsplice -l to -d 'Backend: PORT, NAME:PORT, https://NAME or unix:PATH; several take turns' -r
complete -c longsplice -l tls-cert -d 'Certificate chain (PEM): clients then speak wss:// and https://' -r -F
complete -c longsplice -l tls-key -d 'Its private key (PEM)' -r -F
complete -c longsplice -l idle-timeout -d 'Close a tunnel that was silent for so long: 90s, 10m [1h]' -r
complete -c longsplice -s t -d 'Test the configuration: errors, warnings, and what has no effect here'
complete -c longsplice -s T -d 'The same, and print every file that was read'
complete -c longsplice -s q -d 'Say nothing but errors'
complete -c longsplice -s v -d 'Print the version'
complete -c longsplice -s V -d 'Print the version, how it was built, and what this host gives it'
complete -c longsplice -s h -l help -d 'Print this help'
