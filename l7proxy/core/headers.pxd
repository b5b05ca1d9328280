cimport cython
from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.core._scan cimport ResponseHead as AnswerHead

cpdef bytes request_bytes(Asked head, bytes tail, bytes authority)
cpdef bytes status_line(AnswerHead head)
