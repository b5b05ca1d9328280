from l7proxy.tcp.front cimport TcpFront as Front
from l7proxy.tcp.flow cimport Flow as OneWay

cdef class Session:
    cdef public Front front
    cdef public int client
    cdef public int backend_fd
    cdef public object asker
    cdef public int port
    cdef public int state
    cdef public OneWay up
    cdef public OneWay down
    cdef public double started_at
    cdef public double chosen_at
    cdef public double connected_at
    cdef public double heard_at
    cdef public object name
    cdef public object upstream
    cdef public object upstream_name
    cdef public object backend
    cdef public int retries
    cdef public bint waits
    cdef public object _asked
    cdef public object _place
    cdef public object _destination
    cdef public object _untried
    cdef public object _greeting
    cdef public bytes _held
    cdef public long long _moved
    cdef public bint _is_counted
    cdef public bint _is_kept
    cdef public bint _is_short

    cpdef begin(self, bint awaits_header)
    cpdef event(self, int fd, int mask)
    cpdef step(self)
    cpdef go_on(self)
    cpdef sweep(self, double now)
