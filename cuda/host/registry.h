// The table of kernels by name, which on a GPU the fatbin holds: EXPORT_KERNEL adds an entry before
// the library is ready. Knows each argument's size, as the driver does, so that a launch copies
// them by value.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct HostParameter {
    uint32_t bytes;
    uint32_t is_pointer;
};

struct HostKernel {
    const char* name;
    /// Runs one thread; parameters[i] points to argument i.
    void (*call)(void* const* parameters);
    uint32_t parameter_count;
    const HostParameter* parameters;
    HostKernel* next;
};

extern "C" void bxl_host_register(HostKernel* kernel);

template <typename T>
constexpr bool host_is_pointer = false;
template <typename T>
constexpr bool host_is_pointer<T*> = true;

template <typename T>
struct HostValue {
    using type = T;
};
template <typename T>
struct HostValue<const T> {
    using type = T;
};

template <typename Number, Number... numbers>
struct HostSequence {};

template <auto kernel>
struct HostCall;

template <typename... Parameters, void (*kernel)(Parameters...)>
struct HostCall<kernel> {
    static constexpr uint32_t count = sizeof...(Parameters);
    static constexpr HostParameter parameters[count + 1] = {
        {(uint32_t)sizeof(Parameters), host_is_pointer<typename HostValue<Parameters>::type>}...,
        {0, 0},
    };

    template <size_t... i>
    static inline void unpack(void* const* from, HostSequence<size_t, i...>) {
        kernel(*(typename HostValue<Parameters>::type*)from[i]...);
    }
    static void call(void* const* from) {
        unpack(from, __make_integer_seq<HostSequence, size_t, count>{});
    }
};

struct HostRegistration {
    HostKernel kernel;
    explicit HostRegistration(const HostKernel& entry) : kernel(entry) {
        bxl_host_register(&kernel);
    }
};

#define EXPORT_KERNEL(name)                            \
    static HostRegistration name##_registration({      \
        #name,                                         \
        HostCall<name>::call,                          \
        HostCall<name>::count,                         \
        HostCall<name>::parameters,                    \
        nullptr,                                       \
    });
