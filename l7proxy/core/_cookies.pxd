cpdef Py_ssize_t find_cookie(bytes fields, bytes key, Py_ssize_t start=*) except -2
cpdef Py_ssize_t find_set_cookie(bytes fields, bytes key, Py_ssize_t start=*) except -2
cpdef bytes cookie_value(bytes fields, bytes key, Py_ssize_t at)
cpdef bytes without_cookie(bytes fields, bytes key, Py_ssize_t start=*)
