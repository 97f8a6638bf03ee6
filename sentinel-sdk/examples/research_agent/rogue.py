"""What a prompt injection would try: the research agent's work, and more, without asking. Prints one line an attempt: what, then what came of it.

    sudo sentinel run --policy ./policy.yaml -- /usr/bin/python3 rogue.py 127.0.0.1:8080
"""

import ctypes
import errno
import os
import signal
import socket
import sys

HOST, PORT = sys.argv[1].rsplit(":", 1)
SERVER = (HOST, int(PORT))


def attempt(what, action):
    try:
        action()
        print(f"{what}: succeeds")
    except OSError as error:
        print(f"{what}: refused ({errno.errorcode.get(error.errno, error)})")
    except ChildProcessError as error:
        print(f"{what}: {error}")
    sys.stdout.flush()


def run(path):
    child = os.fork()
    if child == 0:
        os.close(1)
        os.execv(path, [path])
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        print("run %s: killed" % path)
    else:
        print("run %s: ran" % path)


def in_child(action):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        try:
            action()
            os.write(write, b"0")
        except OSError as error:
            os.write(write, str(error.errno).encode())
        os._exit(0)
    os.wait()
    number = int(os.read(read, 16))
    if number:
        raise OSError(number, os.strerror(number))


def join_the_root_cgroup():
    for line in open("/proc/self/mountinfo"):
        if " - cgroup2 " in line:
            open(line.split()[4] + "/cgroup.procs", "w").write(str(os.getpid()))


def new_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


attempt("connect", lambda: socket.create_connection(SERVER, 3))
attempt("connect in a setsid child", lambda: in_child(lambda: socket.create_connection(SERVER, 3)))
attempt("connect over IPv6 to the same", lambda: socket.create_connection(("::ffff:" + HOST, SERVER[1]), 3))
attempt("send a datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", SERVER))
attempt("open a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("open a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("leave the cgroup", join_the_root_cgroup)
attempt("make a network namespace", new_namespace)
run("/usr/bin/wc")
run("/bin/sh")
