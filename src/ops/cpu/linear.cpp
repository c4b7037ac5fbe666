#include "ops/linear.h"

#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

// What follows the product, a row at a time: sums [rows, O] of the compute type become y.
template <class T>
void finish(const LinearArgs& args, const compute_t<T>* sums, int64_t sums_stride) {
    using C = compute_t<T>;
    const Epilogue& out = args.out;
    bool plain = !args.bias.defined() && out.activation == Activation::none && !out.gate.defined() &&
                 !out.residual.defined();
    bool in_place = static_cast<const void*>(sums) == args.y.raw();
    if (plain && in_place) return;
    int64_t rows = args.y.rows(), cols = args.y.cols();
    int64_t tokens = out.gate.defined() ? args.x.dim(1) : 1;
    int64_t groups = out.gate.defined() ? out.gate.dim(1) : 1;
    std::vector<C> bias;
    if (args.bias.defined()) {
        bias.resize(static_cast<size_t>(cols));
        to_compute(args.bias.data<T>(), bias.data(), cols);
    }
#pragma omp parallel if (rows * cols > 1 << 14)
    {
        std::vector<C> row(static_cast<size_t>(cols));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const C* sum = sums + r * sums_stride;
            C* v = row.data();
            if (!bias.empty()) {
                const C* b = bias.data();
#pragma omp simd
                for (int64_t i = 0; i < cols; ++i) v[i] = sum[i] + b[i];
            } else {
                std::copy(sum, sum + cols, v);
            }
            activate_row(out.activation, v, cols);
            if (out.gate.defined()) {
                int64_t group = r / tokens * groups + r % tokens / (tokens / groups);
                const T* gate = out.gate.data<T>() + group * out.gate.row_stride();
#pragma omp simd
                for (int64_t i = 0; i < cols; ++i) v[i] *= static_cast<C>(gate[i]);
            }
            if (out.residual.defined()) {
                const T* residual = out.residual.data<T>() + r * out.residual.row_stride();
#pragma omp simd
                for (int64_t i = 0; i < cols; ++i) v[i] += static_cast<C>(residual[i]);
            }
            from_compute(v, args.y.data<T>() + r * args.y.row_stride(), cols);
        }
    }
}

template <class T>
void product(const LinearArgs& args) {
    gemm<T>(args.x.rows(), args.y.cols(), args.x.cols(), args.x.data<T>(), args.x.row_stride(),
            args.weight.data<T>(), args.weight.row_stride(), args.y.data<T>(), args.y.row_stride(), false);
    finish<T>(args, args.y.data<T>(), args.y.row_stride());
}

}  // namespace

void linear(const LinearArgs& args) {
    int64_t rows = args.x.rows(), cols = args.y.cols(), depth = args.x.cols();
    switch (args.x.dtype()) {
        case DType::F32: return product<float>(args);
        case DType::F64: return product<double>(args);
        case DType::BF16: {
            Tensor sums = empty({rows, cols}, DType::F32);
            gemm_bf16(rows, cols, depth, args.x.data<bf16>(), args.x.row_stride(), args.weight.data<bf16>(),
                      args.weight.row_stride(), sums.data<float>(), cols, false);
            return finish<bf16>(args, sums.data<float>(), cols);
        }
        case DType::F16: {
            Tensor sums = empty({rows, cols}, DType::F32), x = args.x.to(DType::F32),
                   w = args.weight.to(DType::F32);
            gemm<float>(rows, cols, depth, x.data<float>(), depth, w.data<float>(), depth, sums.data<float>(),
                        cols, false);
            return finish<f16>(args, sums.data<float>(), cols);
        }
        default: fail("linear does not compute in ", args.x.dtype());
    }
}

}  // namespace sana::cpu
