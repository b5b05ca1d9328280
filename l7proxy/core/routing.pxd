cimport cython

cdef class _Slot:
    cdef public object sole
    cdef public list choices
    cdef public object source
    cdef public dict index
    cdef public list others

    cpdef choose(self, object asked)


cdef class _Paths:
    cdef public dict exact
    cdef public list regexes
    cdef public object patterns
    cdef public dict prefixes
    cdef public Py_ssize_t longest

    @cython.locals(cut=Py_ssize_t, longest=Py_ssize_t, number=Py_ssize_t, slot=_Slot)
    cpdef find(self, str path, object asked)


cdef class RouteTable:
    cdef public dict _exact
    cdef public dict _wildcards
    cdef public _Paths _any

    @cython.locals(paths=_Paths, dot=Py_ssize_t)
    cpdef find(self, str host, str path, object asked=*)
