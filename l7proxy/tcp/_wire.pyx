# cython: language_level=3, boundscheck=False, wraparound=False
"""`wire.py` once more, for a C compiler. The interpreter's lock is kept: nothing here blocks."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINPROGRESS, EINTR, errno

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <unistd.h>

    static int l7_accept(int fd, char *name, int *port) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int made = accept4(fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        name[0] = 0;
        *port = 0;
        if (made < 0) return made;
        if (from.ss_family == AF_INET) {
            struct sockaddr_in *in = (struct sockaddr_in *)&from;
            inet_ntop(AF_INET, &in->sin_addr, name, INET6_ADDRSTRLEN);
            *port = ntohs(in->sin_port);
        } else if (from.ss_family == AF_INET6) {
            struct sockaddr_in6 *in = (struct sockaddr_in6 *)&from;
            inet_ntop(AF_INET6, &in->sin6_addr, name, INET6_ADDRSTRLEN);
            *port = ntohs(in->sin6_port);
        }
        return made;
    }

    static int l7_address(int version, const char *packed, int port, struct sockaddr_storage *to) {
        memset(to, 0, sizeof *to);
        if (version == 4) {
            struct sockaddr_in *in = (struct sockaddr_in *)to;
            in->sin_family = AF_INET;
            in->sin_port = htons(port);
            memcpy(&in->sin_addr, packed, 4);
            return sizeof *in;
        }
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)to;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        memcpy(&in->sin6_addr, packed, 16);
        return sizeof *in;
    }

    static int l7_dial(const char *to, int size, int dscp) {
        int one = 1, number, mark = dscp << 2;
        int made = socket(((const struct sockaddr *)to)->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (made < 0) return -errno;
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (dscp >= 0) {
            if (((const struct sockaddr *)to)->sa_family == AF_INET6)
                setsockopt(made, IPPROTO_IPV6, IPV6_TCLASS, &mark, sizeof mark);
            else
                setsockopt(made, IPPROTO_IP, IP_TOS, &mark, sizeof mark);
        }
        if (connect(made, (const struct sockaddr *)to, size) == 0 || errno == EINPROGRESS) return made;
        number = errno;
        close(made);
        return -number;
    }

    static int l7_fault(int fd) {
        int number = 0;
        socklen_t size = sizeof number;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) < 0 ? errno : number;
    }

    static void l7_cut(int fd) {
        struct linger at_once = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
    }

    static Py_ssize_t l7_move(int source, int target, Py_ssize_t count) {
        return splice(source, NULL, target, NULL, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    }
    """
    struct sockaddr_storage:
        pass
    int l7_accept(int fd, char *name, int *port) nogil
    int l7_address(int version, const char *packed, int port, sockaddr_storage *to) nogil
    int l7_dial(const char *to, int size, int dscp) nogil
    int l7_fault(int fd) nogil
    void l7_cut(int fd) nogil
    Py_ssize_t l7_move(int source, int target, Py_ssize_t count) nogil
    Py_ssize_t c_recv "recv"(int fd, void *data, size_t size, int flags) nogil
    Py_ssize_t c_send "send"(int fd, const void *data, size_t size, int flags) nogil
    int c_shutdown "shutdown"(int fd, int how) nogil
    int c_close "close"(int fd) nogil
    int MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR


cpdef Py_ssize_t receive(int fd, bytearray buffer) except? -100000:
    cdef Py_ssize_t done
    while True:
        done = c_recv(fd, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), MSG_DONTWAIT)
        if done >= 0:
            return done
        if errno != EINTR:
            return -errno


cpdef Py_ssize_t send(int fd, object buffer, Py_ssize_t start, Py_ssize_t end) except? -100000:
    cdef Py_ssize_t done, size
    cdef const char *data
    if PyByteArray_CheckExact(buffer):
        data, size = PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer)
    else:
        data, size = PyBytes_AS_STRING(<bytes?>buffer), PyBytes_GET_SIZE(buffer)
    if start < 0 or start > end or end > size:
        raise ValueError("no part of the buffer")
    while True:
        done = c_send(fd, data + start, end - start, MSG_DONTWAIT | MSG_NOSIGNAL)
        if done >= 0:
            return done
        if errno != EINTR:
            return -errno


cpdef Py_ssize_t move(int source, int target, Py_ssize_t count) except? -100000:
    cdef Py_ssize_t done
    while True:
        done = l7_move(source, target, count)
        if done >= 0:
            return done
        if errno != EINTR:
            return -errno


cpdef tuple take_client(int fd):
    cdef char name[64]
    cdef int port = 0
    cdef int made = l7_accept(fd, name, &port)
    if made < 0:
        return -errno, "", 0
    return made, (<bytes>name).decode("ascii"), port


cpdef bytes address_of(object endpoint):
    cdef sockaddr_storage to
    cdef bytes packed = endpoint.address.packed
    cdef int size = l7_address(endpoint.address.version, packed, endpoint.port, &to)
    return PyBytes_FromStringAndSize(<char *>&to, size)


cpdef int dial(bytes to, int dscp=-1) except? -100000:
    return l7_dial(PyBytes_AS_STRING(to), PyBytes_GET_SIZE(to), dscp)


cpdef int fault_of(int fd) except? -100000:
    return l7_fault(fd)


cpdef void say_end(int fd) noexcept:
    c_shutdown(fd, SHUT_WR)


cpdef void close(int fd) noexcept:
    c_close(fd)


cpdef void cut(int fd) noexcept:
    l7_cut(fd)
