#include "models/gemma2/gemma2.h"

#include "../golden.h"
#include "core/scope.h"
#include "ops/layout.h"

using namespace sana;
using namespace sana::test;

namespace {

Gemma2 load_golden(const Golden& golden, DType dtype) {
    Gemma2 model(Gemma2Config::from_json(golden.config()));
    TensorMap weights = golden.under("w.");
    load(parameters(model), gemma2_names(weights), weights, dtype, golden.path, test_device());
    return model;
}

// Rows of pads are zeroed on both sides: a pad whose sliding window holds pads only may see no key at all, and what the
// reference's finite mask makes of that (the mean over every key) reaches no real token and no cross-attention.
Tensor real_rows(const Tensor& x, const Tensor& mask) {
    Tensor out = x.to(kCpu).to(DType::F64).clone();
    for (int64_t r = 0; r < out.rows(); ++r) {
        if (mask.data<int32_t>()[r] == 0) std::fill_n(out.data<double>() + r * out.cols(), out.cols(), 0.0);
    }
    return out;
}

void run_golden(const std::string& path, DType dtype, double bound) {
    Golden golden(path);
    Gemma2 model = load_golden(golden, dtype);
    Capture hidden("*in");
    Tensor mask = golden.at("in.attention_mask").to(DType::I32);
    Tensor ids = golden.at("in.input_ids").to(DType::I32);
    Tensor out = model.forward(on_test_device(ids), on_test_device(mask));
    for (int64_t i = 0; i < model.config().layers; ++i) {
        std::string name = join("out.hidden", i);
        if (!golden.has(name)) continue;
        Tensor actual = hidden.values.at(join("text_encoder > layers.", i, " > in"));
        if (!expect_close(real_rows(actual, mask), real_rows(golden.at(name), mask), bound, name)) return;
    }
    expect_close(real_rows(out, mask), real_rows(golden.at("out.last_hidden_state"), mask), bound,
                 "out.last_hidden_state");
}

}  // namespace

TEST(Gemma2Golden, Fp32) {
    for (const std::string& path : golden_files("gemma2")) run_golden(path, DType::F32, 2e-5);
}

TEST(Gemma2Golden, Fp64) {
    SANA_CPU_ONLY(kNoFp64);
    for (const std::string& path : golden_files("gemma2")) run_golden(path, DType::F64, 2e-5);
}

// bf16 weights and activations with fp32 sums: goldens.md.
TEST(Gemma2Golden, Bf16) {
    for (const std::string& path : own_golden_files("gemma2")) run_golden(path, DType::BF16, 2e-2);
}

// The real tokens alone give what they give inside a padded batch: nothing is computed for pads.
TEST(Gemma2, RealTokensAlone) {
    for (const std::string& path : golden_files("gemma2")) {
        Golden golden(path);
        Gemma2 model = load_golden(golden, DType::F32);
        Tensor ids = golden.at("in.input_ids").to(DType::I32),
               mask = golden.at("in.attention_mask").to(DType::I32);
        Tensor all = model.forward(on_test_device(ids), on_test_device(mask)).to(kCpu);
        std::vector<Tensor> texts, states;
        Gemma2Call call;
        for (int64_t b = 0; b < ids.dim(0); ++b) {
            int64_t length = 0;
            while (length < ids.dim(1) && mask.data<int32_t>()[b * ids.dim(1) + length] != 0) ++length;
            if (length == 0) continue;  // padded on the left
            Tensor row = ids.outer_slice(b, 1),
                   alone = model.forward(on_test_device(slice(row, 1, 0, length)), Tensor());
            expect_close(alone, slice(all.outer_slice(b, 1), 1, 0, length), 1e-6, "alone");
            texts.push_back(slice(row, 1, 0, length));
            states.push_back(alone.to(kCpu));
            call.lengths.push_back(length);
        }
        // All texts one behind the other, with tables of more positions than any of them needs.
        ASSERT_GT(texts.size(), 1u);
        call.positions = model.positions(ids.dim(1) + 3);
        expect_close(model.forward(on_test_device(concat(texts, 1)), Tensor(), call), concat(states, 1), 1e-6,
                     "packed");
    }
}
