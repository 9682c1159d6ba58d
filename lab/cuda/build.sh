#!/bin/sh
# build.sh FOLDER: compile the stand-in for the CUDA driver into FOLDER/libcuda.so.1.
set -eu
# The standard is named because newer defaults bind to functions that older C libraries lack.
exec cc -std=c11 -O2 -Wall -Wextra -Werror -shared -fPIC -Wl,-soname,libcuda.so.1 \
    -o "$1/libcuda.so.1" "$(dirname "$0")/libcuda.c"
