"""Runs on a host: `python3 -c TEXT MASTER PORT STOP` counts what comes from there inside of TCP.

Prints `ready`, and the bytes once the file STOP is there. Headers, keep-alives and the PINGs by
which zeromq itself keeps every connection alive are not counted.
"""

import os
import select
import socket
import sys

IP, TCP = 0x0800, 6
LARGEST = 2**16
PING = b"\x04\x07\x04PING\0\0"


def payload_of(packet, size, address, port):
    """Return the bytes inside of a packet, or 0 where it is from somebody else."""
    head = (packet[0] & 15) * 4
    if packet[9] != TCP or packet[12:16] != address:
        return 0
    if int.from_bytes(packet[head : head + 2], "big") != port:
        return 0
    start = head + (packet[head + 12] >> 4) * 4
    return 0 if packet[start:size] == PING else size - start


def main(master, port, stop):
    """Count until told to stop."""
    address = socket.inet_aton(master)
    total, buffer = 0, bytearray(LARGEST)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IP)) as card:
        print("ready", flush=True)
        while not os.access(stop, os.F_OK):
            while select.select([card], [], [], 0.1)[0]:
                size = card.recv_into(buffer, LARGEST, socket.MSG_TRUNC)
                total += payload_of(buffer, size, address, int(port))
    print(total)


if __name__ == "__main__":
    main(*sys.argv[1:])
