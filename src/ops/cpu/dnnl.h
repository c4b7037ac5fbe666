// oneDNN: the CPU engine, the stream of this thread, and running a matmul.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include "core/check.h"

namespace sana::cpu {

inline const dnnl::engine& dnnl_engine() {
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

inline dnnl::stream& dnnl_stream() {
    thread_local dnnl::stream stream(dnnl_engine());
    return stream;
}

// Whether oneDNN multiplies bf16 on this processor: it does so from AVX-512 on.
inline bool dnnl_has_bf16() {
    static const bool has = [] {
        constexpr unsigned kNeeded = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
        return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
    }();
    return has;
}

// oneDNN keeps created primitives in a cache of its own, so asking again for the same descriptors is cheap.
template <class Matmul>
void run_primitive(const dnnl::memory::desc& a, const dnnl::memory::desc& b, const dnnl::memory::desc& c,
                   const dnnl::primitive_attr& attributes, const void* a_data, const void* b_data,
                   void* c_data) {
    try {
        typename Matmul::primitive_desc primitive({a, b, c}, attributes, dnnl_engine());
        auto wrap = [](const dnnl::memory::desc& desc, const void* data) {
            return dnnl::memory(desc, dnnl_engine(), const_cast<void*>(data));
        };
        Matmul(primitive).execute(dnnl_stream(), {{DNNL_ARG_SRC, wrap(a, a_data)},
                                                  {DNNL_ARG_WEIGHTS, wrap(b, b_data)},
                                                  {DNNL_ARG_DST, wrap(c, c_data)}});
        dnnl_stream().wait();
    } catch (const dnnl::error& error) {
        fail("oneDNN matrix product: ", error.what());
    }
}

}  // namespace sana::cpu
