// The flow-matching loss and its gradient in every weight, the latents and the text, against the reference.
#include "../golden.h"
#include "models/dit/dit.h"
#include "ops/layout.h"
#include "ops/tape.h"

using namespace sana;
using namespace sana::test;

namespace {

constexpr double kGradient = 1e-4;  // goldens.md, a tensor

void run_golden(const std::string& path, DType dtype) {
    Golden golden(path);
    DiTConfig config = DiTConfig::from_json(golden.config());
    DiT dit(config);
    CheckpointNames names = dit_diffusers_names(config);
    load(parameters(dit), names, golden.under("w."), dtype, path);
    auto list = parameters(dit);
    for (NamedParameter& p : list) p.parameter->value = p.parameter->value.clone();  // not views of the file

    auto input = [&](const char* key) { return golden.at(key).to(dtype).clone(); };
    Tensor x0 = input("in.x0"), noise = input("in.noise"), sigma = golden.at("in.sigma");
    Tensor xt = empty(x0.shape(), DType::F64), target = empty(x0.shape(), DType::F64),
           t = empty({x0.dim(0)}, DType::F32);
    int64_t each = x0.numel() / x0.dim(0);
    std::vector<double> a = to_vector<double>(x0), n = to_vector<double>(noise);
    for (int64_t i = 0; i < x0.numel(); ++i) {
        double s = sigma.data<float>()[i / each];
        xt.data<double>()[i] = (1 - s) * a[static_cast<size_t>(i)] + s * n[static_cast<size_t>(i)];
        target.data<double>()[i] = n[static_cast<size_t>(i)] - a[static_cast<size_t>(i)];
    }
    for (int64_t b = 0; b < x0.dim(0); ++b) t.data<float>()[b] = 1000 * sigma.data<float>()[b];
    if (dtype == DType::F64) t = t.to(DType::F64);

    Tensor latents = channels_last(xt).to(dtype), text = input("in.text");
    Tape tape;
    for (const NamedParameter& p : list) tape.require(p.parameter->value);
    tape.require(latents);
    tape.require(text);
    Tensor out = dit.forward(latents, t, dit.prepare_text(text, golden.at("in.text_mask").to(DType::I32)));
    std::vector<double> y = to_vector<double>(channels_first(out)), goal = to_vector<double>(target);
    Tensor seed = empty(x0.shape(), DType::F64);
    double loss = 0, count = static_cast<double>(x0.numel());
    for (size_t i = 0; i < y.size(); ++i) {
        loss += (y[i] - goal[i]) * (y[i] - goal[i]) / count;
        seed.data<double>()[i] = 2 * (y[i] - goal[i]) / count;
    }
    EXPECT_NEAR(loss, golden.at("out.loss").data<float>()[0], 1e-5 * loss);
    tape.backward(out, channels_last(seed).to(dtype));

    // The gradients take the place of the weights, so that saving names and lays them out as the file does.
    std::vector<Tensor> gradients;
    for (const NamedParameter& p : list) gradients.push_back(tape.gradient(p.parameter->value).clone());
    for (size_t i = 0; i < list.size(); ++i) list[i].parameter->value = gradients[i];
    TensorMap saved = save(list, names), expected = golden.under("grad.");
    int64_t compared = 0;
    for (const auto& [key, gradient] : saved) {
        if (expected.count(key) == 0) continue;
        ++compared;
        expect_close(gradient, expected.at(key), kGradient, "grad." + key);
    }
    EXPECT_EQ(compared, static_cast<int64_t>(saved.size()));
    // d loss / d xt, which reaches x0 by 1 - s when the reference asks for that.
    Tensor dxt = channels_first(tape.gradient(latents));
    for (const char* key : {"grad.latents", "grad.xt", "grad.in.latents"}) {
        if (golden.has(key)) expect_close(dxt, golden.at(key), kGradient, key);
    }
    for (const char* key : {"grad.text", "grad.in.text"}) {
        if (golden.has(key)) expect_close(tape.gradient(text), golden.at(key), kGradient, key);
    }
}

}  // namespace

TEST(DiTGradientGolden, Fp32) {
    SANA_CPU_ONLY("only the CPU has derivatives");
    for (const std::string& path : golden_files("dit_flow_gradients")) run_golden(path, DType::F32);
}

TEST(DiTGradientGolden, Fp64) {
    SANA_CPU_ONLY(kNoFp64);
    for (const std::string& path : golden_files("dit_flow_gradients")) run_golden(path, DType::F64);
}
