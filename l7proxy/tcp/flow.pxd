cdef class Flow:
    cdef public int source
    cdef public int target
    cdef public bint readable
    cdef public bint writable
    cdef public bint eager
    cdef public bint closing
    cdef public bint ended
    cdef public bint finished
    cdef public bint is_last
    cdef public long long moved
    cdef public bytes held
    cdef public int large
    cdef public object pipe
    cdef public Py_ssize_t piped
    cdef public int error

    cpdef int pump(self, object pipes) except -1
    cpdef bint _pass_on(self, Py_ssize_t taken, object pipes) except *
    cpdef bint _flush(self) except *
    cpdef bint _unsent(self, Py_ssize_t sent) except *
    cpdef _finish(self)
    cpdef rest(self, object pipes)
    cpdef drop(self, object pipes)
