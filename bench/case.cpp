#include "bench/case.h"

#include <cmath>

#include "core/parallel.h"

namespace sana::cases {

namespace {

// SplitMix64 (Steele, Lea, Flood 2014) of a counter.
uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// In (0, 1).
double unit(uint64_t call, int64_t i, uint64_t lane) {
    uint64_t bits = mixed(mixed(call * 2 + lane) + static_cast<uint64_t>(i));
    return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

template <class F>
Tensor filled(const Shape& shape, DType dtype, F f) {
    Tensor out = empty(shape, dtype);
    dispatch_float(dtype, [&]<class T>() {
        T* p = out.data<T>();
        parallel_for(out.numel(), 20, [&](int64_t i) { p[i] = T(static_cast<compute_t<T>>(f(i))); });
    });
    return out;
}

}  // namespace

Input Generator::normal(const Shape& shape, double deviation, double mean) {
    uint64_t call = calls_++;
    if (cheap_) {
        return {
            filled(shape, dtype_,
                   [&](int64_t i) { return mean + deviation * std::sqrt(12.0) * (unit(call, i, 0) - 0.5); }),
            Role::data, false};
    }
    return {filled(shape, dtype_,
                   [&](int64_t i) {
                       double radius = std::sqrt(-2 * std::log(unit(call, i, 0)));
                       return mean + deviation * radius * std::cos(2 * M_PI * unit(call, i, 1));
                   }),
            Role::data, false};
}

Input Generator::uniform(const Shape& shape, double low, double high) {
    uint64_t call = calls_++;
    return {filled(shape, dtype_, [&](int64_t i) { return low + (high - low) * unit(call, i, 0); }),
            Role::data, false};
}

Input Generator::ids(const Shape& shape, int64_t count) {
    uint64_t call = calls_++;
    Tensor out = empty(shape, DType::I32);
    for (int64_t i = 0; i < out.numel(); ++i) {
        out.data<int32_t>()[i] = static_cast<int32_t>(unit(call, i, 0) * static_cast<double>(count));
    }
    return fixed(out);
}

Input Generator::mask(const Shape& shape, double kept) {
    uint64_t call = calls_++;
    Tensor out = empty(shape, DType::I32);
    for (int64_t i = 0; i < out.numel(); ++i) out.data<int32_t>()[i] = unit(call, i, 0) < kept ? 1 : 0;
    return fixed(out);
}

Input Generator::integers(const Shape& shape, DType dtype) { return fixed(ids(shape, 100).value.to(dtype)); }

std::vector<Case> all_cases() {
    std::vector<Case> all;
    for (auto family :
         {linear_cases, norm_cases, rope_cases, attention_cases, linear_attention_cases, conv_cases,
          mix_ffn_cases, pointwise_cases, embed_cases, layout_cases, fp8_cases, depth_to_space_cases}) {
        for (Case& one : family()) all.push_back(std::move(one));
    }
    return all;
}

}  // namespace sana::cases
