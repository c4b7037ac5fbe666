// The procedural world, its wordings, and the judge of what a video shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/parallel.h"
#include "core/random.h"
#include "train/world/judge.h"
#include "train/world/wording.h"
#include "train/world/world_source.h"

namespace sana::world {
namespace {

const Bucket kBucket{33, 96, 160};

bool same(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() &&
           std::equal(a.data<uint8_t>(), a.data<uint8_t>() + a.numel(), b.data<uint8_t>());
}

Motion motion_shown(const Scene& scene) {
    return scene.camera.motion == Motion::still ? scene.objects[0].motion : scene.camera.motion;
}

TEST(World, AClipIsAFunctionOfSeedAndIndex) {
    Scene scene = make_scene(3, 5, kBucket, 16, Split::training);
    Tensor clip = render(scene, kBucket);
    EXPECT_TRUE(same(clip, render(make_scene(3, 5, kBucket, 16, Split::training), kBucket)));
    EXPECT_FALSE(same(clip, render(make_scene(3, 6, kBucket, 16, Split::training), kBucket)));
    EXPECT_FALSE(same(clip, render(make_scene(4, 5, kBucket, 16, Split::training), kBucket)));
    EXPECT_FALSE(same(clip, render(make_scene(3, 5, kBucket, 16, Split::held_out), kBucket)));
}

TEST(World, EveryChoiceComesUp) {
    std::set<Shape> shapes;
    std::set<Color> colors, backgrounds;
    std::set<Texture> textures, patterns;
    std::set<Motion> motions;
    std::set<size_t> counts;
    for (int64_t i = 0; i < 800; ++i) {
        Scene s = make_scene(1, i, kBucket, 16, Split::training);
        shapes.insert(s.objects[0].shape);
        colors.insert(s.objects[0].color);
        textures.insert(s.objects[0].texture);
        backgrounds.insert(s.background);
        patterns.insert(s.pattern);
        motions.insert(motion_shown(s));
        counts.insert(s.objects.size());
    }
    EXPECT_EQ(shapes.size(), kShapes);
    EXPECT_EQ(colors.size(), kColors);
    EXPECT_EQ(backgrounds.size(), kColors);
    EXPECT_EQ(textures.size(), kTextures);
    EXPECT_EQ(patterns.size(), kTextures);
    EXPECT_EQ(motions.size(), kMotions);
    EXPECT_EQ(counts, (std::set<size_t>{1, 2}));
}

TEST(World, HeldOutCombinationsStayOutOfTraining) {
    for (int64_t i = 0; i < 300; ++i) {
        Scene training = make_scene(2, i, kBucket, 16, Split::training);
        for (const Object& o : training.objects)
            EXPECT_FALSE(
                held_out(o.shape, o.color,
                         training.camera.motion == Motion::still ? o.motion : training.camera.motion));
        Scene held = make_scene(2, i, kBucket, 16, Split::held_out);
        EXPECT_TRUE(held_out(held.objects[0].shape, held.objects[0].color, motion_shown(held)));
    }
}

TEST(World, ObjectsStayInsideAndApartAtEveryShape) {
    for (const Bucket& bucket :
         {Bucket{33, 96, 160}, Bucket{65, 160, 96}, Bucket{49, 97, 97}, Bucket{2, 31, 61}}) {
        for (int64_t i = 0; i < 60; ++i) {
            Scene scene = make_scene(4, i, bucket, 16, Split::training);
            auto truth = nlohmann::json::parse(truth_json(scene, bucket, 16));
            ASSERT_EQ(truth["objects"].size(), scene.objects.size());
            for (int64_t t = 0; t < bucket.frames; ++t) {
                std::vector<std::array<double, 3>> places;
                for (const auto& object : truth["objects"]) {
                    const auto& p = object["track"][static_cast<size_t>(t)];
                    places.push_back({p[0], p[1], p[2]});
                    auto [x, y, r] = places.back();
                    EXPECT_GE(std::min(x, y) - r, 0) << truth;
                    EXPECT_LE(x + r, bucket.width) << truth;
                    EXPECT_LE(y + r, bucket.height) << truth;
                }
                if (places.size() == 2) {
                    double gap = std::hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]) -
                                 places[0][2] - places[1][2];
                    EXPECT_GT(gap, 0.02 * static_cast<double>(std::min(bucket.height, bucket.width)));
                }
            }
        }
    }
}

TEST(World, PicturesAndOddSizesAreDrawn) {
    for (const Bucket& bucket : {Bucket{1, 96, 160}, Bucket{1, 17, 16}, Bucket{5, 131, 97}}) {
        Tensor clip = render(make_scene(5, 0, bucket, 16, Split::training), bucket);
        EXPECT_TRUE(clip.shape() == (sana::Shape{bucket.frames, bucket.height, bucket.width, 3}));
    }
    EXPECT_THROW(make_scene(5, 0, {0, 96, 160}, 16, Split::training), InputError);
    EXPECT_THROW(make_scene(5, 0, {33, 15, 160}, 16, Split::training), InputError);
    EXPECT_THROW(make_scene(5, 0, {33, 20, 160}, 16, Split::training), InputError);
}

// The same scene at twice the size shows the same picture: means of 2 x 2 pixels agree but for texture at edges.
TEST(World, SizeChangesTheSamplingOnly) {
    Bucket small{3, 48, 80}, large{3, 96, 160};
    for (int64_t i = 0; i < 20; ++i) {
        Scene scene = make_scene(6, i, small, 16, Split::training);
        Tensor a = render(scene, small), b = render(scene, large);
        double sum = 0;
        for (int64_t t = 0; t < 3; ++t)
            for (int64_t y = 0; y < 48; ++y)
                for (int64_t x = 0; x < 80; ++x)
                    for (int64_t c = 0; c < 3; ++c) {
                        auto at = [&](int64_t dy, int64_t dx) {
                            return b.data<uint8_t>()[((t * 96 + 2 * y + dy) * 160 + 2 * x + dx) * 3 + c];
                        };
                        double mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
                        sum += std::abs(mean - a.data<uint8_t>()[((t * 48 + y) * 80 + x) * 3 + c]);
                    }
        EXPECT_LT(sum / static_cast<double>(a.numel()), 1.5) << i;
    }
}

bool says(const std::string& text, const std::vector<std::string>& words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const std::string& w) { return text.find(w) != std::string::npos; });
}

TEST(Caption, SaysWhatItStatesInKnownWords) {
    std::set<std::string> different;
    int without_size = 0, without_background = 0;
    for (int64_t i = 0; i < 400; ++i) {
        for (Split wording : {Split::training, Split::held_out}) {
            Scene scene = make_scene(8, i, kBucket, 16, Split::training);
            Caption caption = make_caption(scene, i % 3, {.wording = wording});
            EXPECT_EQ(caption.text, make_caption(scene, i % 3, {.wording = wording}).text);
            EXPECT_TRUE(unknown_words(caption.text).empty()) << caption.text;
            EXPECT_EQ(caption.text.find(".."), std::string::npos) << caption.text;
            EXPECT_EQ(caption.text.find('{'), std::string::npos) << caption.text;
            EXPECT_EQ(caption.text.find("  "), std::string::npos) << caption.text;
            for (size_t k = 0; k < scene.objects.size(); ++k) {
                const Object& o = scene.objects[k];
                const Stated::OfObject& s = caption.stated.objects[k];
                EXPECT_TRUE(!s.color || says(caption.text, wording::colors(o.color))) << caption.text;
                EXPECT_TRUE(!s.shape || says(caption.text, wording::shapes(o.shape))) << caption.text;
                EXPECT_TRUE(!s.size || says(caption.text, wording::sizes(o.size))) << caption.text;
                std::vector<std::string> moves;
                for (const auto& [finite, gerund] : wording::motions(o.motion))
                    moves.insert(moves.end(), {finite, gerund});
                EXPECT_TRUE(!s.motion || says(caption.text, moves)) << caption.text;
                without_size += !s.size;
            }
            EXPECT_TRUE(!caption.stated.background || says(caption.text, wording::colors(scene.background)))
                << caption.text;
            without_background += !caption.stated.background;
            different.insert(caption.text);
        }
    }
    EXPECT_GT(different.size(), 790u);
    EXPECT_GT(without_size, 100);
    EXPECT_GT(without_background, 50);
}

TEST(Caption, ACompleteOneLeavesOutNoneOfTheMainFacts) {
    for (int64_t i = 0; i < 200; ++i) {
        Scene scene = make_scene(9, i, kBucket, 16, Split::held_out);
        Caption caption = make_caption(scene, 0, {.wording = Split::held_out, .complete = true});
        EXPECT_TRUE(caption.stated.background);
        for (const Stated::OfObject& s : caption.stated.objects) {
            EXPECT_TRUE(s.color && s.shape);
            EXPECT_TRUE(s.motion || caption.stated.camera);
        }
    }
}

TEST(Caption, AdviceNamesWhatIsUnknown) {
    EXPECT_EQ(advice("A small red circle moves left over a blue background."), "");
    EXPECT_EQ(unknown_words("a red dog, a DOG and a cat"), (std::vector<std::string>{"dog", "cat"}));
    std::string text = advice("a dog runs over the meadow");
    EXPECT_NE(text.find("'dog', 'runs', 'meadow'"), std::string::npos) << text;
    EXPECT_NE(text.find("crescent"), std::string::npos);
    EXPECT_NE(advice("moves left"), "");
}

// By a 1-2-1 kernel both ways, so many times.
Tensor softened(const Tensor& clip, int times) {
    int64_t frames = clip.dim(0), height = clip.dim(1), width = clip.dim(2);
    Tensor in = clip;
    for (int n = 0; n < times; ++n) {
        Tensor out = empty_like(in);
        for (int64_t t = 0; t < frames; ++t)
            for (int64_t y = 0; y < height; ++y)
                for (int64_t x = 0; x < width; ++x)
                    for (int64_t c = 0; c < 3; ++c) {
                        int sum = 8;
                        for (int64_t dy = -1; dy <= 1; ++dy)
                            for (int64_t dx = -1; dx <= 1; ++dx) {
                                int64_t yy = std::clamp<int64_t>(y + dy, 0, height - 1),
                                        xx = std::clamp<int64_t>(x + dx, 0, width - 1);
                                sum += in.data<uint8_t>()[((t * height + yy) * width + xx) * 3 + c] *
                                       (dy == 0 ? 2 : 1) * (dx == 0 ? 2 : 1);
                            }
                        out.data<uint8_t>()[((t * height + y) * width + x) * 3 + c] =
                            static_cast<uint8_t>(sum / 16);
                    }
        in = out;
    }
    return in;
}

// As an autoencoder leaves a clip: softened, with noise of 5 levels.
Tensor degraded(const Tensor& clip, uint64_t stream) {
    Tensor out = softened(clip, 1), noise = randn_philox(clip.shape(), 5, stream);
    for (int64_t i = 0; i < out.numel(); ++i) {
        uint8_t& p = out.data<uint8_t>()[i];
        p = static_cast<uint8_t>(
            std::clamp(p + 5.0 * static_cast<double>(noise.data<float>()[i]), 0.0, 255.0));
    }
    return out;
}

std::vector<Asked> look_at_clips(int64_t count, bool degrade) {
    std::vector<Asked> out(static_cast<size_t>(count));
    parallel_for(count, 1 << 20, [&](int64_t i) {
        Asked& v = out[static_cast<size_t>(i)];
        v.scene = make_scene(77, i, kBucket, 16, Split::held_out);
        v.caption = make_caption(v.scene, 0, {.wording = Split::held_out, .complete = true});
        Tensor clip = render(v.scene, kBucket);
        v.seen = look_at(degrade ? degraded(clip, static_cast<uint64_t>(i)) : clip);
    });
    return out;
}

TEST(Judge, SeesWhatDrawnClipsShow) {
    std::vector<Asked> videos = look_at_clips(110, false);
    Tally right = tally(videos);
    for (size_t a = 0; a < 6; ++a) EXPECT_GE(right.share(a), 0.99) << kAttributes[a];
    // Against the captions of others: what answering by chance gives. With one object it is 1 in 10 for a colour, 1 in
    // 8 for a shape, about 1 in 3 for a size, 1 in 18 for a motion; the better of two objects is taken.
    Tally chance = tally_shuffled(videos);
    const double most[] = {0.15, 0.18, 0.45, 0.09, 0.7, 0.11};
    for (size_t a = 0; a < 6; ++a) EXPECT_LT(chance.share(a), most[a]) << kAttributes[a];
    EXPECT_LT(chance.share_all(), 0.01);
}

TEST(Judge, SeesItThroughBlurAndNoiseToo) {
    Tally right = tally(look_at_clips(110, true));
    for (size_t a = 0; a < 6; ++a) EXPECT_GE(right.share(a), 0.99) << kAttributes[a];
}

// A small thing whose edges are soft keeps its shape: a star of eleven pixels is no heart because its points are faint. One of
// eight may be lost: that much blur closes the hole of a ring.
TEST(Judge, SeesTheShapeOfSmallThingsWithSoftEdges) {
    for (int s = 0; s < kShapes; ++s) {
        Emphasised wanted{
            .shape = static_cast<sana::world::Shape>(s), .size = Size::small, .motion = Motion::left};
        int clips = 0, right = 0;
        for (int64_t index = 0; clips < 8; ++index) {
            Scene scene = make_scene(9, index, kBucket, 16, Split::training);
            if (scene.objects.size() != 1 || !wanted.shown_by(scene)) continue;
            ++clips;
            Seen seen = look_at(softened(render(scene, kBucket), 3));
            right += seen.things.size() == 1 && seen.things[0].shape == scene.objects[0].shape;
        }
        EXPECT_GE(right, clips - 1) << name_of(static_cast<sana::world::Shape>(s));
    }
}

// A thing that turns and changes its shape a little moves its centre to and fro, but does not go round in a circle.
TEST(Judge, WobblingIsNoCircle) {
    int clips = 0, right = 0;
    for (int64_t index = 0; clips < 10; ++index) {
        Scene scene = make_scene(6, index, kBucket, 16, Split::training);
        if (scene.objects.size() != 1 || scene.objects[0].motion != Motion::spin) continue;
        if (scene.objects[0].size == Size::small) continue;
        ++clips;
        Object still = scene.objects[0];
        Tensor clip = empty({kBucket.frames, kBucket.height, kBucket.width, 3}, DType::U8);
        for (int64_t t = 0; t < kBucket.frames; ++t) {
            double s = static_cast<double>(t) / 32;
            scene.objects[0].start.x = still.start.x + 0.04 * std::sin(9 * s);
            scene.objects[0].start.y = still.start.y + 0.04 * std::cos(11 * s);
            Tensor frame = clip.select(t);
            copy(render(scene, kBucket).select(t), frame);
        }
        right += look_at(clip).things.at(0).motion == Motion::spin;
    }
    EXPECT_EQ(right, clips);
}

// Generated things have a faint glow around them that goes along: it is not the camera that moves.
TEST(Judge, AGlowThatGoesAlongIsNoCamera) {
    int clips = 0;
    for (int64_t index = 0; clips < 6; ++index) {
        Scene scene = make_scene(5, index, kBucket, 16, Split::held_out);
        bool plain = scene.pattern == Texture::plain && scene.light == Light::none;
        if (!plain || scene.camera.motion != Motion::still || scene.objects.size() != 1) continue;
        if (scene.objects[0].motion == Motion::still || scene.objects[0].motion == Motion::spin) continue;
        ++clips;
        Tensor clip = render(scene, kBucket);
        int64_t pixels = kBucket.height * kBucket.width;
        for (int64_t t = 0; t < kBucket.frames; ++t) {
            Pose pose = scene.objects[0].pose(static_cast<double>(t) / 32);
            double side = static_cast<double>(kBucket.height);
            for (int64_t i = 0; i < pixels; ++i) {
                double x = static_cast<double>(i % kBucket.width) - 80 - pose.x * side,
                       y = static_cast<double>(i / kBucket.width) - 48 - pose.y * side;
                double away = std::hypot(x, y) - pose.radius * side;
                // Darker on the way to 22 pixels from its edge, by at most 14 levels.
                double glow = away < 0 || away > 22 ? 0 : 14 * (1 - away / 22);
                for (int64_t c = 0; c < 3; ++c) {
                    uint8_t& p = clip.data<uint8_t>()[(t * pixels + i) * 3 + c];
                    p = static_cast<uint8_t>(std::clamp(p - glow, 0.0, 255.0));
                }
            }
        }
        EXPECT_EQ(look_at(clip).camera, Motion::still) << make_caption(scene, 0).text;
    }
}

TEST(Judge, AnythingCanBeLookedAt) {
    for (const sana::Shape& shape :
         {sana::Shape{1, 1, 1, 3}, sana::Shape{2, 7, 300, 3}, sana::Shape{3, 40, 40, 3}}) {
        Tensor noise = empty(shape, DType::U8);
        Draws draws(1, static_cast<uint64_t>(shape.numel()));
        for (int64_t i = 0; i < noise.numel(); ++i)
            noise.data<uint8_t>()[i] = static_cast<uint8_t>(draws.below(256));
        Seen seen = look_at(noise);
        Scene scene = make_scene(1, 0, kBucket, 16, Split::training);
        EXPECT_TRUE(judge(seen, scene, make_caption(scene, 0).stated).count.has_value());
    }
}

TEST(Judge, PsnrOfPictures) {
    Tensor a = full({4, 4, 3}, 100, DType::U8), b = full({4, 4, 3}, 110, DType::U8);
    EXPECT_DOUBLE_EQ(psnr(a, a), 100);
    EXPECT_NEAR(psnr(a, b), 20 * std::log10(25.5), 1e-9);
}

TEST(WorldSource, ClipsComeAgainInAnotherOrderAndOtherWords) {
    WorldSourceOptions options{.seed = 11, .buckets = {{9, 48, 80}}, .batch = 3, .clips = 12};
    WorldSource source(options);
    EXPECT_EQ(source.batches_per_epoch(), 4);
    std::map<int64_t, std::set<std::string>> captions;
    std::vector<std::vector<int64_t>> passes(5);
    for (int64_t position = 0; position < 20; ++position) {
        for (const Sample& s : source.batch(position).samples) {
            passes[static_cast<size_t>(position / 4)].push_back(s.index);
            captions[s.index].insert(s.caption);
            EXPECT_EQ(s.hash, WorldSource({.seed = 11, .buckets = {{9, 48, 80}}, .batch = 1})
                                  .batch(s.index)
                                  .samples[0]
                                  .hash);
        }
    }
    size_t wordings = 0;
    for (const auto& [index, texts] : captions) wordings += texts.size();
    EXPECT_GT(wordings, 12u * 3);
    std::set<std::vector<int64_t>> orders(passes.begin(), passes.end());
    EXPECT_GT(orders.size(), 2u);
    for (std::vector<int64_t>& pass : passes) {
        std::sort(pass.begin(), pass.end());
        for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(pass[static_cast<size_t>(i)], i);
    }
    EXPECT_NE(source.fingerprint(),
              WorldSource({.seed = 11, .buckets = {{9, 48, 80}}, .batch = 3}).fingerprint());
    options.clips = 13;
    EXPECT_THROW(WorldSource{options}, InputError);
}

TEST(WorldSource, ShardsShareTheClips) {
    WorldSource source({.seed = 11, .buckets = {{9, 48, 80}}, .batch = 3, .clips = 24, .shards = 2});
    std::set<std::vector<int64_t>> orders;
    for (int64_t pass = 0; pass < 4; ++pass) {
        for (int64_t shard = 0; shard < 2; ++shard) {
            std::vector<int64_t> order;
            for (int64_t i = 0; i < 4; ++i)
                for (const Sample& s : source.batch((pass * 4 + i) * 2 + shard).samples)
                    order.push_back(s.index);
            orders.insert(order);
            std::sort(order.begin(), order.end());
            for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], 2 * i + shard);
        }
    }
    EXPECT_GT(orders.size(), 4u);
    EXPECT_NE(source.fingerprint(),
              WorldSource({.seed = 11, .buckets = {{9, 48, 80}}, .batch = 3, .clips = 24}).fingerprint());
    EXPECT_THROW(WorldSource({.buckets = {{9, 48, 80}}, .batch = 3, .clips = 15, .shards = 2}), InputError);
    EXPECT_THROW(WorldSource({.buckets = {{9, 48, 80}}, .batch = 3, .shards = 0}), InputError);
}

TEST(WorldSource, EmphasisIsSeenAsOftenAsAsked) {
    WorldSourceOptions options{.seed = 3,
                               .buckets = {{17, 48, 80}},
                               .batch = 50,
                               .emphasis = "small star, orbit",
                               .emphasis_share = 0.6};
    auto share_of = [](const WorldSource& source, std::string_view text) {
        Emphasised wanted = parse_emphasis(text).at(0);
        int count = 0;
        for (int64_t i = 0; i < 600; ++i) count += wanted.shown_by(source.scene(i, {17, 48, 80}));
        return count / 600.0;
    };
    WorldSource source(options);
    options.emphasis.clear();
    options.emphasis_share = 0;
    WorldSource plain(options);
    // Three standard deviations of a share of 600 draws are 0.06, and 0.04 of the share by chance, taken 0.7 times: 0.07
    // together.
    for (const char* text : {"small star", "orbit"}) {
        double chance = share_of(plain, text);
        EXPECT_NEAR(share_of(source, text), 0.3 + 0.7 * chance, 0.08) << text << ", by chance " << chance;
    }
    EXPECT_NE(source.fingerprint(), plain.fingerprint());
    for (int64_t i = 0; i < 60; ++i) {
        Scene scene = source.scene(i, {17, 48, 80});
        EXPECT_FALSE(held_out(scene.objects[0].shape, scene.objects[0].color, scene.objects[0].motion));
    }
    // A clip that comes again is the same clip.
    options = {.seed = 3,
               .buckets = {{9, 48, 80}},
               .batch = 4,
               .clips = 8,
               .emphasis = "heart",
               .emphasis_share = 1};
    WorldSource again(options);
    Batch first = again.batch(0);
    for (const Sample& s : first.samples) {
        Scene scene = again.scene(s.index, first.bucket);
        EXPECT_TRUE(parse_emphasis("heart")[0].shown_by(scene));
        EXPECT_EQ(scene.index, again.scene(s.index, first.bucket).index);
    }
    options.emphasis_share = 0;
    EXPECT_THROW(WorldSource{options}, InputError);
    options.emphasis_share = 0.5;
    for (const char* bad :
         {"small sun", "small large", "star,, heart", "star heart", "orbit spin", "spin circle"}) {
        options.emphasis = bad;
        EXPECT_THROW(WorldSource{options}, InputError) << bad;
    }
}

TEST(WorldSource, BatchesAreFunctionsOfTheirPosition) {
    WorldSourceOptions options{.seed = 11, .buckets = {{9, 48, 80}, {1, 64, 64}}, .batch = 3};
    WorldSource source(options), again(options);
    std::set<std::string> hashes;
    std::set<int64_t> frames;
    for (int64_t position : {0, 7, 3, 8, 1000000}) {
        Batch a = source.batch(position), b = again.batch(position);
        ASSERT_EQ(a.samples.size(), 3u);
        EXPECT_TRUE(a.bucket == b.bucket);
        frames.insert(a.bucket.frames);
        for (size_t i = 0; i < 3; ++i) {
            EXPECT_EQ(a.samples[i].caption, b.samples[i].caption);
            EXPECT_EQ(a.samples[i].hash, b.samples[i].hash);
            EXPECT_TRUE(hashes.insert(a.samples[i].hash).second);
            EXPECT_TRUE(same(source.video(a.samples[i], a.bucket), again.video(b.samples[i], b.bucket)));
        }
    }
    EXPECT_EQ(frames.size(), 2u);
    options.seed = 12;
    EXPECT_NE(WorldSource(options).fingerprint(), source.fingerprint());
    options.batch = 0;
    EXPECT_THROW(WorldSource{options}, InputError);
}

}  // namespace
}  // namespace sana::world
