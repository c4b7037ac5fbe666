// Both autoencoders against the reference, and the properties that streaming rests on.
#include "../golden.h"
#include "models/ltx2_vae/ltx2_vae.h"
#include "models/wan_vae/wan_vae.h"

using namespace sana;
using namespace sana::test;

namespace {

constexpr double kFp32 = 2e-5;  // goldens.md; measured below 2e-6

// bf16 storage, fp32 sums. A model of released width is to stay within 2e-2; these have 8 to 16 channels, over which
// the roundings of some twenty layers average less (measured 2.1e-2).
constexpr double kBf16 = 4e-2;

template <class Vae>
void run_golden(const Golden& golden, Vae& vae, const CheckpointNames& names, DType dtype, double bound) {
    load(parameters(vae), names, golden.under("w."), dtype, golden.path, test_device());
    auto input = [&](const char* key) { return on_test_device(channels_last(golden.at(key)).to(dtype)); };
    VaeMoments moments = vae.encode(input("in.video"));
    if (!expect_close(channels_first(moments.mean), golden.at("out.mean"), bound, "out.mean")) return;
    expect_close(channels_first(moments.logvar), golden.at("out.logvar"), bound, "out.logvar");
    expect_close(channels_first(vae.decode(input("in.latents"))), golden.at("out.video"), bound, "out.video");
    if (golden.has("in.image")) {
        expect_close(channels_first(vae.encode(input("in.image")).mean), golden.at("out.image_mean"), bound,
                     "out.image_mean");
        expect_close(channels_first(vae.decode(input("in.latent_image"))), golden.at("out.image"), bound,
                     "out.image");
    }
}

template <class Vae>
void expect_chunks_exact(const Vae& vae, const Tensor& latents, double bound) {
    Tensor one = vae.decode(latents, {.chunk = 1});
    for (int64_t chunk : {2, 3, 8}) {
        EXPECT_LE(relative_l2(vae.decode(latents, {.chunk = chunk}), one), bound) << "chunk " << chunk;
    }
    std::vector<Tensor> received;
    std::vector<int64_t> done;
    Tensor none = vae.decode(latents, {.sink = [&](const Tensor& frames) { received.push_back(frames); },
                                       .progress = [&](int64_t n, int64_t) { done.push_back(n); },
                                       .chunk = 2});
    EXPECT_FALSE(none.defined());
    EXPECT_LE(relative_l2(concat(received, 1), one), bound);
    EXPECT_EQ(done.back(), latents.dim(1));
}

Tensor ramp(const Shape& shape) {
    Tensor x = empty(shape, DType::F32);
    for (int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = std::sin(0.37f * static_cast<float>(i));
    return x;
}

}  // namespace

TEST(WanVaeGolden, Fp32AndFp64) {
    for (const std::string& path : golden_files("wan_vae")) {
        Golden golden(path);
        WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::both);
        for (DType dtype : exact_dtypes())
            run_golden(golden, vae, wan_vae_names(VaeParts::both), dtype, kFp32);
    }
}

TEST(WanVaeGolden, Bf16) {
    for (const std::string& path : own_golden_files("wan_vae")) {
        Golden golden(path);
        WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::both);
        run_golden(golden, vae, wan_vae_names(VaeParts::both), DType::BF16, kBf16);
    }
}

TEST(Ltx2VaeGolden, Fp32AndFp64) {
    for (const std::string& path : golden_files("ltx2_vae")) {
        SCOPED_TRACE(path);
        Golden golden(path);
        Ltx2Vae vae(Ltx2VaeConfig::from_json(golden.config()), VaeParts::both);
        for (DType dtype : exact_dtypes())
            run_golden(golden, vae, ltx2_vae_names(VaeParts::both), dtype, kFp32);
    }
}

TEST(WanVae, ChunksOfAnySizeAreExact) {
    Golden golden(golden_files("wan_vae")[0]);
    WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::decoder);
    for (DType dtype : exact_dtypes()) {
        load(parameters(vae), wan_vae_names(VaeParts::decoder), golden.under("w."), dtype, golden.path,
             test_device());
        Tensor latents = ramp({2, 6, 3, 2, vae.config().latent_channels}).to(dtype);
        expect_chunks_exact(vae, on_test_device(latents), same_bound(dtype));
    }
}

TEST(WanVae, ShortMemoryMakesChunksSmaller) {
    Golden golden(golden_files("wan_vae")[0]);
    WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::decoder);
    Device device = test_device();
    load(parameters(vae), wan_vae_names(VaeParts::decoder), golden.under("w."), DType::F32, golden.path,
         device);
    Tensor latents = on_test_device(ramp({1, 13, 8, 8, vae.config().latent_channels})),
           before = latents.clone();
    std::vector<Tensor> video;
    std::vector<int64_t> done;
    auto decode = [&](int64_t chunk) {
        video.clear();
        done.clear();
        vae.decode(latents, {.sink = [&](const Tensor& frames) { video.push_back(frames.to(kCpu)); },
                             .progress = [&](int64_t n, int64_t) { done.push_back(n); },
                             .chunk = chunk});
        return concat(video, 1);
    };
    auto peak_of = [&](int64_t chunk) {
        decode(chunk);
        video.clear();
        release_cached(device);
        reset_peak(device);
        decode(chunk);
        return memory_statistics(device).peak;
    };
    int64_t least = peak_of(1), most = peak_of(12);
    Tensor whole = decode(12);
    ASSERT_EQ(done, (std::vector<int64_t>{1, 13}));
    struct Capacity {
        Device device;
        Capacity(Device d, int64_t bytes) : device(d) {
            release_cached(device);
            set_capacity(device, bytes);
        }
        ~Capacity() { set_capacity(device, INT64_MAX); }
    };
    {
        Capacity capacity(device, (least + most) / 2);
        Tensor pieces = decode(12);
        EXPECT_GT(done.size(), 2u);
        EXPECT_EQ(done.back(), 13);
        EXPECT_LE(relative_l2(pieces, whole), same_bound(DType::F32));
    }
    video.clear();
    {
        Capacity capacity(device, memory_statistics(device).active + (int64_t{16} << 10));
        EXPECT_THROW(decode(12), OutOfMemory);
    }
    EXPECT_EQ(max_abs_difference(latents, before), 0.0);
}

TEST(Ltx2Vae, CausalChunksAreExact) {
    for (const std::string& path : golden_files("ltx2_vae")) {
        Golden golden(path);
        Ltx2VaeConfig config = Ltx2VaeConfig::from_json(golden.config());
        if (!config.decoder_causal) continue;
        Ltx2Vae vae(config, VaeParts::decoder);
        for (DType dtype : exact_dtypes()) {
            load(parameters(vae), ltx2_vae_names(VaeParts::decoder), golden.under("w."), dtype, path,
                 test_device());
            Tensor latents = ramp({1, 4, 2, 2, config.latent_channels}).to(dtype);
            expect_chunks_exact(vae, on_test_device(latents), same_bound(dtype));
        }
    }
}

// One tile that covers the clip changes nothing; several differ, but only mildly away from smooth inputs.
TEST(WanVae, Tiling) {
    Golden golden(golden_files("wan_vae")[0]);
    WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::both);
    load(parameters(vae), wan_vae_names(VaeParts::both), golden.under("w."), DType::F32, golden.path,
         test_device());
    int64_t cell = vae.config().spatial_factor();
    Tensor latents = on_test_device(ramp({1, 2, 6, 8, vae.config().latent_channels})),
           whole = vae.decode(latents);
    vae.tiling = {8 * cell, 6 * cell};
    EXPECT_EQ(max_abs_difference(vae.decode(latents), whole), 0.0);
    vae.tiling = {4 * cell, 3 * cell};
    Tensor tiled = vae.decode(latents);
    EXPECT_EQ(tiled.shape(), whole.shape());
    EXPECT_GT(max_abs_difference(tiled, whole), 0.0);
    // Rows and columns before the first overlap come from the first tile alone.
    auto first = [&](const Tensor& x) {
        return slice(slice(x, 2, 0, 3 * cell), 3, 0, 3 * cell).contiguous();
    };
    Tensor corner = vae.decode(slice(slice(latents, 2, 0, 4), 3, 0, 4));
    EXPECT_LE(max_abs_difference(first(tiled), first(corner)), 1e-6);
    EXPECT_EQ(vae.encode(whole).mean.shape(), latents.shape());
}

TEST(WanVae, RefusesWhatDoesNotFit) {
    WanVaeConfig config = WanVaeConfig::released();
    config.base = config.decoder_base = 4;
    WanVae vae(config, VaeParts::both);
    draw(parameters(vae), 1, DType::F32);
    EXPECT_THROW(vae.encode(zeros({1, 2, 16, 16, 3}, DType::F32)), InputError);  // 2 frames
    EXPECT_THROW(vae.encode(zeros({1, 1, 12, 16, 3}, DType::F32)), InputError);  // height
    EXPECT_THROW(vae.decode(zeros({1, 1, 2, 2, 15}, DType::F32)), InputError);   // channels
}

TEST(Vae, NormalisingIsUndone) {
    WanVae vae(WanVaeConfig::released(), VaeParts::decoder);
    Tensor z = on_test_device(ramp({1, 2, 3, 4, 16}));
    EXPECT_LE(relative_l2(vae.denormalise(vae.normalise(z)), z), 1e-6);
}
