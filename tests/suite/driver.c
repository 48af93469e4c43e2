// A stand-in for the CUDA driver, for machines without a GPU: memory is the host's, work is done when it is queued, and
// kernels do nothing. It is strict about what the real driver forgives or punishes late: a call without a context, a
// launch that its function's attributes do not allow, a stream's work outside its capture, memory freed twice or never.
// A fault is printed and turns the process's exit code into 99.
//
// EVENKEEL_FAKE_VERSION, _CAPABILITY (as 90), _DEVICES and _POOLS describe the machine.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <pthread.h>

typedef int Result;
enum {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kCaptureUnsupported = 900,
  kCaptureIsolation = 905,
};

typedef struct Stream {
  int capturing;
  int alive;
} Stream;
typedef struct Event {
  double us;
  int captured;
} Event;
typedef struct Function {
  int max_dynamic_shared;
  int non_portable;
} Function;
typedef struct Allocation {
  void* memory;
  size_t bytes;
  struct Allocation* next;
} Allocation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Allocation* allocations;
static int faults, initialised, context_storage;
static Stream null_stream = {0, 1};
static __thread void* current;

static int setting(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static void fault(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("driver: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  ++faults;
}

static void at_exit(void) {
  for (Allocation* a = allocations; a; a = a->next) fault("%zu bytes were never freed", a->bytes);
  if (faults) _exit(99);
}

static Stream* stream_of(void* handle, const char* call) {
  if (!initialised || current != &context_storage) fault("%s without a context", call);
  Stream* stream = handle ? handle : &null_stream;
  if (!stream->alive) fault("%s on a destroyed stream", call);
  return stream;
}

// Whether the range lies in one allocation.
static int known(uint64_t address, size_t bytes) {
  pthread_mutex_lock(&lock);
  int found = 0;
  for (Allocation* a = allocations; a && !found; a = a->next)
    found = address >= (uint64_t)a->memory && address + bytes <= (uint64_t)a->memory + a->bytes;
  pthread_mutex_unlock(&lock);
  return found;
}

Result cuInit(unsigned flags) {
  (void)flags;
  if (!setting("EVENKEEL_FAKE_DEVICES", 1)) return kNoDevice;
  if (!initialised++) atexit(at_exit);
  return kSuccess;
}
Result cuDriverGetVersion(int* version) {
  *version = setting("EVENKEEL_FAKE_VERSION", 13000);
  return kSuccess;
}
Result cuGetErrorName(Result error, const char** name) {
  switch (error) {
    case kInvalidValue: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case kOutOfMemory: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case kNoDevice: *name = "CUDA_ERROR_NO_DEVICE"; break;
    default: *name = "CUDA_ERROR_OF_SOME_KIND"; break;
  }
  return kSuccess;
}
Result cuGetErrorString(Result error, const char** text) { return cuGetErrorName(error, text); }

Result cuDeviceGetCount(int* count) {
  *count = setting("EVENKEEL_FAKE_DEVICES", 1);
  return kSuccess;
}
Result cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < setting("EVENKEEL_FAKE_DEVICES", 1) ? kSuccess : kInvalidDevice;
}
Result cuDeviceGetName(char* name, int length, int device) {
  snprintf(name, (size_t)length, "Stand-in %d", device);
  return kSuccess;
}
Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  (void)device;
  int capability = setting("EVENKEEL_FAKE_CAPABILITY", 90);
  switch (attribute) {
    case 16: *value = 132; break;                             // multiprocessors
    case 75: *value = capability / 10; break;                 // compute capability, major
    case 76: *value = capability % 10; break;                 // and minor
    case 97: *value = 232448; break;                          // shared memory per block, opt-in
    case 115: *value = setting("EVENKEEL_FAKE_POOLS", 1); break;  // memory pools
    default: *value = 0; fault("attribute %d was not expected", attribute);
  }
  return kSuccess;
}

Result cuDevicePrimaryCtxRetain(void** context, int device) {
  (void)device;
  *context = &context_storage;
  return kSuccess;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  return kSuccess;
}
Result cuCtxGetCurrent(void** context) {
  *context = current;
  return kSuccess;
}
Result cuCtxSetCurrent(void* context) {
  current = context;
  return kSuccess;
}
Result cuCtxSynchronize(void) { return kSuccess; }

Result cuStreamCreate(void** stream, unsigned flags) {
  if (flags != 1) fault("a blocking stream");
  Stream* made = calloc(1, sizeof(Stream));
  made->alive = 1;
  *stream = made;
  return kSuccess;
}
// The object is kept, so that a use after its end is seen.
Result cuStreamDestroy_v2(void* handle) {
  stream_of(handle, "cuStreamDestroy")->alive = 0;
  return kSuccess;
}
Result cuStreamSynchronize(void* handle) {
  if (!stream_of(handle, "cuStreamSynchronize")->capturing) return kSuccess;
  fault("cuStreamSynchronize on a captured stream");
  return kCaptureUnsupported;
}
Result cuStreamIsCapturing(void* handle, int* status) {
  *status = stream_of(handle, "cuStreamIsCapturing")->capturing;
  return kSuccess;
}
Result cuStreamGetCtx(void* handle, void** context) {
  stream_of(handle, "cuStreamGetCtx");
  *context = &context_storage;
  return kSuccess;
}
Result cuStreamBeginCapture_v2(void* handle, int mode) {
  (void)mode;
  stream_of(handle, "cuStreamBeginCapture")->capturing = 1;
  return kSuccess;
}
Result cuStreamEndCapture(void* handle, void** graph) {
  stream_of(handle, "cuStreamEndCapture")->capturing = 0;
  *graph = &context_storage;
  return kSuccess;
}
Result cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long flags) {
  (void)flags;
  *exec = graph;
  return kSuccess;
}
Result cuGraphLaunch(void* exec, void* handle) {
  (void)exec;
  stream_of(handle, "cuGraphLaunch");
  return kSuccess;
}
Result cuGraphExecDestroy(void* exec) {
  (void)exec;
  return kSuccess;
}
Result cuGraphDestroy(void* graph) {
  (void)graph;
  return kSuccess;
}

Result cuEventCreate(void** event, unsigned flags) {
  (void)flags;
  *event = calloc(1, sizeof(Event));
  return kSuccess;
}
Result cuEventDestroy_v2(void* event) {
  free(event);
  return kSuccess;
}
Result cuEventRecord(void* handle, void* stream) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  Event* event = handle;
  event->us = (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
  event->captured = stream_of(stream, "cuEventRecord")->capturing;
  return kSuccess;
}
Result cuEventSynchronize(void* event) {
  (void)event;
  return kSuccess;
}
Result cuEventElapsedTime_v2(float* ms, void* start, void* end) {
  *ms = (float)((((Event*)end)->us - ((Event*)start)->us) * 1e-3);
  return kSuccess;
}
Result cuStreamWaitEvent(void* handle, void* event, unsigned flags) {
  (void)flags;
  if (stream_of(handle, "cuStreamWaitEvent")->capturing == ((Event*)event)->captured)
    return kSuccess;
  fault("a wait across the border of a capture");
  return kCaptureIsolation;
}

static Result allocate(uint64_t* address, size_t bytes) {
  if (bytes > (size_t)1 << 40) return kOutOfMemory;
  Allocation* made = malloc(sizeof(Allocation));
  made->bytes = bytes;
  made->memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(made->memory, 0xff, bytes);
  pthread_mutex_lock(&lock);
  made->next = allocations;
  allocations = made;
  pthread_mutex_unlock(&lock);
  *address = (uint64_t)made->memory;
  return kSuccess;
}
static Result release(uint64_t address) {
  pthread_mutex_lock(&lock);
  for (Allocation** at = &allocations; *at; at = &(*at)->next) {
    Allocation* found = *at;
    if ((uint64_t)found->memory != address) continue;
    *at = found->next;
    pthread_mutex_unlock(&lock);
    free(found->memory);
    free(found);
    return kSuccess;
  }
  pthread_mutex_unlock(&lock);
  fault("a free of memory that was not allocated");
  return kInvalidValue;
}
Result cuMemAllocAsync(uint64_t* address, size_t bytes, void* stream) {
  if (stream_of(stream, "cuMemAllocAsync")->capturing) fault("an allocation in a capture");
  if (!setting("EVENKEEL_FAKE_POOLS", 1)) fault("cuMemAllocAsync without memory pools");
  return allocate(address, bytes);
}
Result cuMemFreeAsync(uint64_t address, void* stream) {
  if (stream_of(stream, "cuMemFreeAsync")->capturing) fault("a free in a capture");
  return release(address);
}
Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  stream_of(NULL, "cuMemAlloc");
  return allocate(address, bytes);
}
Result cuMemFree_v2(uint64_t address) {
  stream_of(NULL, "cuMemFree");
  return release(address);
}
Result cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, void* stream) {
  stream_of(stream, "cuMemsetD8Async");
  if (!known(address, bytes)) fault("a fill outside of memory");
  memset((void*)address, value, bytes);
  return kSuccess;
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  if (stream_of(stream, "cuMemcpyHtoDAsync")->capturing) fault("a copy from the host in a capture");
  if (!known(to, bytes)) fault("a copy to outside of memory");
  memcpy((void*)to, from, bytes);
  return kSuccess;
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  if (stream_of(stream, "cuMemcpyDtoHAsync")->capturing) fault("a copy to the host in a capture");
  if (!known(from, bytes)) fault("a copy from outside of memory");
  memcpy(to, (void*)from, bytes);
  return kSuccess;
}
Result cuPointerGetAttribute(void* data, int attribute, uint64_t address) {
  (void)data, (void)attribute, (void)address;
  return kInvalidValue;  // what the driver says of pageable memory
}

Result cuModuleLoadData(void** module, const void* image) {
  stream_of(NULL, "cuModuleLoadData");
  if ((uint64_t)image % 16) fault("a module image that is not aligned to 16 bytes");
  if (*(const uint32_t*)image != 0xba55ed50u) fault("a module image that is no fatbin");
  *module = &context_storage;
  return kSuccess;
}
Result cuModuleGetFunction(void** function, void* module, const char* name) {
  (void)module;
  (void)name;
  stream_of(NULL, "cuModuleGetFunction");
  Function* made = calloc(1, sizeof(Function));
  made->max_dynamic_shared = 48 * 1024;
  *function = made;
  return kSuccess;
}
Result cuFuncGetAttribute(int* value, int attribute, void* function) {
  (void)function;
  *value = 0;
  if (attribute != 1) fault("function attribute %d was not expected", attribute);
  return kSuccess;
}
Result cuFuncSetAttribute(void* handle, int attribute, int value) {
  Function* function = handle;
  switch (attribute) {
    case 8: function->max_dynamic_shared = value; break;
    case 14: function->non_portable = value; break;
    default: fault("function attribute %d was not expected", attribute);
  }
  return value <= 232448 ? kSuccess : kInvalidValue;
}

typedef struct LaunchAttribute {
  int id;
  char padding[4];
  unsigned cluster[16];
} LaunchAttribute;
typedef struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  void* stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
} LaunchConfig;

static Result check_launch(const LaunchConfig* config, const Function* function) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->attribute_count; ++i) {
    if (config->attributes[i].id != 4) fault("launch attribute %d", config->attributes[i].id);
    cluster = config->attributes[i].cluster[0];
    if (config->attributes[i].cluster[1] != 1 || config->attributes[i].cluster[2] != 1)
      fault("a cluster of more than one dimension");
  }
  int fits = config->grid[0] && config->grid[0] % cluster == 0 && config->grid[1] == 1 &&
             config->grid[2] == 1 && config->block[0] && config->block[0] <= 1024 &&
             config->block[1] == 1 && config->block[2] == 1 &&
             (int)config->shared <= function->max_dynamic_shared &&
             cluster <= (function->non_portable ? 16u : 8u);
  if (!fits) fault("a launch that does not fit");
  return fits ? kSuccess : kInvalidValue;
}
Result cuLaunchKernelEx(const LaunchConfig* config, void* function, void** params, void** extra) {
  stream_of(config->stream, "cuLaunchKernelEx");
  if (!params || !params[0] || extra) fault("a launch without its parameter");
  return check_launch(config, function);
}
Result cuOccupancyMaxActiveClusters(int* clusters, void* function, const LaunchConfig* config) {
  *clusters = 16;
  return check_launch(config, function);
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads,
                                                   size_t shared) {
  (void)function, (void)threads, (void)shared;
  *blocks = 2;
  return kSuccess;
}
// Says what the real one answers with "invalid value" alone.
Result cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* address,
                              const uint64_t* dims, const uint64_t* strides, const uint32_t* box,
                              const uint32_t* steps, int interleave, int swizzle, int promotion,
                              int fill) {
  static const unsigned kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
  if (!map || (uintptr_t)map % 64 || type < 0 || type > 9 || rank < 1 || rank > 5 || interleave ||
      swizzle < 0 || swizzle > 3 || promotion < 0 || promotion > 3 || fill) {
    fault("a tensor map that is none");
    return kInvalidValue;
  }
  const unsigned bytes = kBytes[type];
  int fits = (uintptr_t)address % 16 == 0;
  uint64_t end = dims[0] * bytes;
  for (uint32_t i = 0; i < rank; ++i) {
    fits = fits && dims[i] && dims[i] <= 1ull << 32 && box[i] && box[i] <= 256 && steps[i] == 1;
    if (i == 0) continue;
    fits = fits && strides[i - 1] % 16 == 0 && strides[i - 1] < 1ull << 40;
    end += (dims[i] - 1) * strides[i - 1];
  }
  const unsigned row = box[0] * bytes;
  fits = fits && row % 16 == 0 && (swizzle == 0 || row <= 16u << swizzle);
  if (!fits) fault("a tensor map that does not fit");
  if (!known((uint64_t)(uintptr_t)address, end)) fault("a tensor map of memory that is not there");
  memset(map, 0, 128);
  return fits ? kSuccess : kInvalidValue;
}
