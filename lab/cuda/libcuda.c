/*
 * A stand-in for libcuda.so.1, the CUDA driver's API: answers what a program may ask about a GPU, and computes nothing.
 *
 * It behaves as the documentation of the CUDA driver API says for these calls (chapters Error Handling, Initialization,
 * Version Management and Device Management) and reports one GB10: compute capability 12.1, 48 multiprocessors, 102,400
 * bytes of shared memory each, 101,376 of them for a block that opts in, 49,152 else.
 *
 * The environment makes it another GPU, or an unwell one:
 *   STANDIN_CUDA_DEVICES=2                       number of devices
 *   STANDIN_CUDA_NAME="NVIDIA H100 80GB HBM3"    their name
 *   STANDIN_CUDA_ATTRIBUTES="75=9 76=0"          attributes (CUdevice_attribute), the rest stays as it is
 *   STANDIN_CUDA_FAIL="cuInit=100"               functions that answer with an error code (CUresult)
 */

#include <stdlib.h>
#include <string.h>

/* The types and values of the API, as its documentation gives them. */
typedef int CUresult;
typedef int CUdevice;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_STUB_LIBRARY = 34,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
    CUDA_ERROR_UNKNOWN = 999
};

struct error {
    CUresult code;
    const char *name;
    const char *description;
};

static const struct error errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_STUB_LIBRARY, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

struct attribute {
    int number;
    const char *key;
    int value;
};

static const struct attribute attributes[] = {
    {8, "8", 49152},    /* CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK */
    {16, "16", 48},     /* CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT */
    {75, "75", 12},     /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR */
    {76, "76", 1},      /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR */
    {81, "81", 102400}, /* CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR */
    {97, "97", 101376}, /* CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
};

static const char device_name[] = "NVIDIA GB10";
static const int cuda_version = 13000; /* 1000 * major + 10 * minor */

static int initialized;

/* The number that "key=number" in the blank-separated text gives, or otherwise. Without strtol, whose name in the
 * library depends on the C library that this is compiled on. */
static int number_in(const char *text, const char *key, int otherwise)
{
    size_t length = strlen(key);

    while (text && *text) {
        if (strncmp(text, key, length) == 0 && text[length] == '=') {
            int number = 0;

            for (text += length + 1; *text >= '0' && *text <= '9'; text++)
                number = number * 10 + (*text - '0');
            return number;
        }
        text = strchr(text, ' ');
        if (text)
            text++;
    }
    return otherwise;
}

/* The error that a function has to answer with whatever it is asked: the wanted one, or the missing cuInit. */
static CUresult refusal(const char *function, int needs_initialization)
{
    CUresult wanted = number_in(getenv("STANDIN_CUDA_FAIL"), function, CUDA_SUCCESS);

    if (needs_initialization && !initialized)
        return CUDA_ERROR_NOT_INITIALIZED;
    return wanted;
}

static int device_count(void)
{
    const char *text = getenv("STANDIN_CUDA_DEVICES");

    return text && *text >= '0' && *text <= '9' ? *text - '0' : 1;
}

static int is_device(CUdevice device)
{
    return device >= 0 && device < device_count();
}

static const struct error *error_of(CUresult code)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code)
            return &errors[i];
    return NULL;
}

CUresult cuGetErrorName(CUresult error, const char **text)
{
    const struct error *known = error_of(error);

    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    *text = known ? known->name : NULL;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    const struct error *known = error_of(error);

    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    *text = known ? known->description : NULL;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuInit(unsigned int flags)
{
    CUresult result = refusal("cuInit", 0);

    if (result != CUDA_SUCCESS)
        return result;
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    initialized = 1;
    return CUDA_SUCCESS;
}

/* The one question that needs no cuInit: its documentation knows no CUDA_ERROR_NOT_INITIALIZED. */
CUresult cuDriverGetVersion(int *version)
{
    CUresult result = refusal("cuDriverGetVersion", 0);

    if (result != CUDA_SUCCESS)
        return result;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = cuda_version;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    CUresult result = refusal("cuDeviceGetCount", 1);

    if (result != CUDA_SUCCESS)
        return result;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = device_count();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult result = refusal("cuDeviceGet", 1);

    if (result != CUDA_SUCCESS)
        return result;
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(ordinal))
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    const char *wanted = getenv("STANDIN_CUDA_NAME");
    CUresult result = refusal("cuDeviceGetName", 1);

    if (result != CUDA_SUCCESS)
        return result;
    if (!name || length < 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device))
        return CUDA_ERROR_INVALID_DEVICE;
    strncpy(name, wanted ? wanted : device_name, (size_t)length - 1);
    name[length - 1] = '\0';
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int number, CUdevice device)
{
    CUresult result = refusal("cuDeviceGetAttribute", 1);

    if (result != CUDA_SUCCESS)
        return result;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device))
        return CUDA_ERROR_INVALID_DEVICE;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (attributes[i].number == number) {
            *value = number_in(getenv("STANDIN_CUDA_ATTRIBUTES"), attributes[i].key, attributes[i].value);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}
