cimport cython

cdef class _Paths:
    cdef public dict exact
    cdef public list regexes
    cdef public dict prefixes
    cdef public Py_ssize_t longest

    @cython.locals(cut=Py_ssize_t, longest=Py_ssize_t)
    cpdef find(self, str path)


cdef class RouteTable:
    cdef public dict _exact
    cdef public dict _wildcards
    cdef public _Paths _any

    @cython.locals(paths=_Paths, dot=Py_ssize_t)
    cpdef find(self, str host, str path)
