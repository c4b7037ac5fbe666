#include "ops/cpu/conv_dnnl.h"

#ifdef SANA_ONEDNN

#include <map>
#include <mutex>
#include <vector>

#include "ops/cpu/dnnl.h"

namespace sana::cpu {

namespace {

using dnnl::memory;
using Key = std::vector<int64_t>;

memory::data_type data_type(DType dtype) {
    return dtype == DType::F32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// What oneDNN computes with for operands of a dtype: bf16 is widened on processors where it cannot multiply bf16.
DType working_dtype(DType dtype) { return dnnl_has_bf16() ? dtype : DType::F32; }

struct Prepared {
    dnnl::convolution_forward::primitive_desc desc;
    dnnl::convolution_forward convolution;
    memory weights;
};

// Convolutions with a weight of one storage: the weights in the layout that oneDNN prefers, freed with the storage.
// Weights are constant at inference; the key holds the offset, the shapes and the padding.
struct PreparedConvolutions {
    std::mutex mutex;
    std::map<Key, Prepared> entries;
};

PreparedConvolutions& prepared_of(Storage& storage) {
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    if (storage.derived == nullptr) storage.derived = std::make_shared<PreparedConvolutions>();
    return *static_cast<PreparedConvolutions*>(storage.derived.get());
}

memory::dims video_dims(const Tensor& x) { return {x.dim(0), x.dim(4), x.dim(1), x.dim(2), x.dim(3)}; }

Prepared prepare(const Conv3dArgs& args, const Tensor& x, const std::array<int64_t, 3>& before,
                 const std::array<int64_t, 3>& after, bool residual) {
    Tensor w = args.weight.to(x.dtype());
    memory::data_type type = data_type(x.dtype());
    memory::dims weight_dims{w.dim(0), w.dim(4), w.dim(1), w.dim(2), w.dim(3)};
    memory::desc x_desc(video_dims(x), type, memory::format_tag::ndhwc);
    memory::desc y_desc(video_dims(args.y), type, memory::format_tag::ndhwc);
    memory::desc any_weights(weight_dims, type, memory::format_tag::any);
    memory::desc bias_desc({w.dim(0)}, type, memory::format_tag::x);
    memory::dims strides(args.options.stride.begin(), args.options.stride.end());
    memory::dims low(before.begin(), before.end()), high(after.begin(), after.end());
    dnnl::primitive_attr attributes;
    if (residual) {
        dnnl::post_ops sum;
        sum.append_sum(1.0f);
        attributes.set_post_ops(sum);
    }
    using Forward = dnnl::convolution_forward;
    auto describe = [&] {
        if (args.bias.defined()) {
            return Forward::desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct,
                                 x_desc, any_weights, bias_desc, y_desc, strides, low, high);
        }
        return Forward::desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, x_desc,
                             any_weights, y_desc, strides, low, high);
    };
    Prepared out;
    out.desc = Forward::primitive_desc(describe(), attributes, dnnl_engine());
    out.convolution = Forward(out.desc);
    // [O,KT,KH,KW,C] in memory is the tag odhwi of a logical [O,C,KT,KH,KW].
    memory plain(memory::desc(weight_dims, type, memory::format_tag::odhwi), dnnl_engine(), w.raw());
    out.weights = memory(out.desc.weights_desc(), dnnl_engine());
    dnnl::reorder(plain, out.weights).execute(dnnl_stream(), plain, out.weights);
    dnnl_stream().wait();
    return out;
}

}  // namespace

bool conv3d_uses_dnnl(DType dtype) { return dtype == DType::F32 || dtype == DType::BF16; }

void conv3d_dnnl(const Conv3dArgs& args, const Tensor& input, const std::array<int64_t, 3>& before,
                 const std::array<int64_t, 3>& after) {
    DType dtype = working_dtype(input.dtype());
    Tensor x = input.to(dtype), bias = args.bias.defined() ? args.bias.to(dtype) : Tensor();
    Tensor y = dtype == args.y.dtype() ? args.y : empty(args.y.shape(), dtype);
    bool residual = args.options.residual.defined();
    if (residual) copy(args.options.residual, y);
    Key key{args.weight.byte_offset(), args.bias.defined() ? 1 : 0, residual ? 1 : 0,
            static_cast<int64_t>(x.dtype())};
    for (int64_t dim : x.shape()) key.push_back(dim);
    for (int64_t dim : args.weight.shape()) key.push_back(dim);
    for (size_t i = 0; i < 3; ++i) key.insert(key.end(), {before[i], after[i], args.options.stride[i]});
    PreparedConvolutions& cache = prepared_of(*args.weight.storage());
    std::lock_guard lock(cache.mutex);
    try {
        auto it = cache.entries.find(key);
        if (it == cache.entries.end())
            it = cache.entries.emplace(key, prepare(args, x, before, after, residual)).first;
        Prepared& ready = it->second;
        auto wrap = [](const memory::desc& desc, void* data) { return memory(desc, dnnl_engine(), data); };
        std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, wrap(ready.desc.src_desc(), x.raw())},
                                                  {DNNL_ARG_WEIGHTS, ready.weights},
                                                  {DNNL_ARG_DST, wrap(ready.desc.dst_desc(), y.raw())}};
        if (args.bias.defined()) {
            arguments.emplace(DNNL_ARG_BIAS, wrap(ready.desc.bias_desc(), bias.raw()));
        }
        ready.convolution.execute(dnnl_stream(), arguments);
        dnnl_stream().wait();
        if (dtype != args.y.dtype()) copy(y, args.y);
    } catch (const dnnl::error& error) {
        fail("oneDNN convolution of ", x, " with ", args.weight, ": ", error.what());
    }
}

}  // namespace sana::cpu

#else

namespace sana::cpu {

bool conv3d_uses_dnnl(DType) { return false; }

void conv3d_dnnl(const Conv3dArgs& args, const Tensor&, const std::array<int64_t, 3>&,
                 const std::array<int64_t, 3>&) {
    fail("conv3d of ", args.x, ": this build has no oneDNN");
}

}  // namespace sana::cpu

#endif
