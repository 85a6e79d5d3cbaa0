"""Starts a program in which some system calls fail: forbid.py ERRNO CALL[:ARGUMENT=VALUE|ARGUMENT&BITS,...] ... [ERRNO CALL ...] -- PROGRAM ...

A filter of system calls (seccomp(2)) that stays for the life of the program; conditions are on the low halves of arguments.
A CALL is a name, or a number and "..": that and all behind it.
"""
import ctypes
import errno
import os
import platform
import struct
import sys

ARCH, NUMBERS = {
    "x86_64": (0xC000003E, {"socket": 41, "sendto": 44, "recvfrom": 45, "splice": 275, "accept4": 288, "pipe2": 293, "epoll_ctl": 233,
                            "setsockopt": 54, "seccomp": 317}),
    "aarch64": (0xC00000B7, {"socket": 198, "sendto": 206, "recvfrom": 207, "splice": 76, "accept4": 242, "pipe2": 59, "epoll_ctl": 21,
                             "setsockopt": 208, "seccomp": 277}),
}[platform.machine()]
# Calls since Linux 5.1 have one number on all machines.
NUMBERS |= {"io_uring_setup": 425, "landlock_create_ruleset": 444}
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def rule(text, code):
    """Instructions that return `code` for a call, or go on behind themselves."""
    name, _, conditions = text.partition(":")
    tests = [(0, AT_LEAST, int(name[:-2])) if name.endswith("..") else (0, EQUAL, NUMBERS[name])]
    for condition in filter(None, conditions.split(",")):
        operator = "=" if "=" in condition else "&"
        argument, value = map(int, condition.split(operator))
        tests.append((16 + 8 * argument, EQUAL if operator == "=" else ANY_BIT, value))
    length = 2 * len(tests) + 1
    out = []
    for offset, operator, value in tests:
        out.append((LOAD, 0, 0, offset))
        out.append((operator, 0, length - len(out) - 1, value))
    return out + [(RETURN, 0, 0, FAIL | code)]


end = sys.argv.index("--")
program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCH), (RETURN, 0, 0, ALLOW)]
for text in sys.argv[1:end]:
    if hasattr(errno, text):
        code = getattr(errno, text)
    else:
        program += rule(text, code)
program.append((RETURN, 0, 0, ALLOW))
packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
instructions = ctypes.create_string_buffer(packed, len(packed))
descriptor = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(instructions)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, descriptor, 0, 0):
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
