#include "train/world/caption.h"

#include <algorithm>

#include "train/world/wording.h"

namespace sana::world {

namespace {

std::string with_article(const std::string& noun_phrase) {
    bool vowel = std::string_view("aeiou").find(noun_phrase.front()) != std::string_view::npos;
    return (vowel ? "an " : "a ") + noun_phrase;
}

std::string joined(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) {
        if (!word.empty()) out += (out.empty() ? "" : " ") + word;
    }
    return out;
}

// "{o} {v}" with each {x} replaced.
std::string filled(std::string_view pattern, const std::vector<std::pair<char, std::string>>& parts) {
    std::string out;
    for (size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] != '{') {
            out += pattern[i];
            continue;
        }
        for (const auto& [letter, text] : parts) {
            if (pattern[i + 1] == letter) out += text;
        }
        i += 2;
    }
    return out;
}

// The plainest word half of the time, else any.
const std::string& word_of(Draws& draws, const std::vector<std::string>& words) {
    return draws.chance(0.5) ? words.front() : draws.of(words);
}

struct Phrase {
    std::string finite, gerund;
};

class Writer {
public:
    Writer(const Scene& scene, Draws draws, const CaptionOptions& options)
        : scene_(scene), draws_(draws), options_(options) {
        out_.stated.objects.resize(scene.objects.size());
    }

    Caption write() {
        bool camera = scene_.camera.motion != Motion::still, picture = scene_.seconds == 0;
        bool two = scene_.objects.size() == 2;
        bool say_background = options_.complete || !draws_.chance(0.15);
        std::vector<std::string> things;
        for (size_t i = 0; i < scene_.objects.size(); ++i) things.push_back(with_article(thing(i)));
        std::string all = two ? things[0] + " and " + things[1] : things[0];
        std::vector<std::pair<char, std::string>> parts = {{'o', all}};
        std::string spot = say_background ? background(parts) : "";
        Phrase first;
        const std::vector<std::string>* frames = nullptr;
        if (picture) {
            frames = say_background ? &wording::picture_frames() : &wording::picture_frames_bare();
        } else if (camera) {
            first = motion(scene_.camera.motion, scene_.camera.speed, out_.stated.camera, nullptr);
            parts.emplace_back('c', first.finite);
            frames = say_background ? &wording::camera_frames() : &wording::camera_frames_bare();
        } else {
            std::vector<Phrase> moves;
            bool say = options_.complete || !draws_.chance(0.05);
            for (size_t i = 0; say && i < scene_.objects.size(); ++i) {
                Stated::OfObject& stated = out_.stated.objects[i];
                moves.push_back(
                    motion(scene_.objects[i].motion, scene_.objects[i].speed, stated.motion, &stated.speed));
            }
            if (!say) {
                frames = say_background ? &wording::picture_frames() : &wording::picture_frames_bare();
            } else {
                first = moves[0];
                std::string link = two ? draws_.of(wording::links()) : "";
                parts.emplace_back('v', things[0] + " " + moves[0].finite +
                                            (two ? link + things[1] + " " + moves[1].finite : ""));
                parts.emplace_back('g', things[0] + " " + moves[0].gerund +
                                            (two ? " and " + things[1] + " " + moves[1].gerund : ""));
                parts.emplace_back('w', two ? "" : moves[0].finite);
                parts.emplace_back('h', two ? "" : moves[0].gerund);
                frames = two ? (say_background ? &wording::pair_frames() : &wording::pair_frames_bare())
                             : (say_background ? &wording::frames() : &wording::frames_bare());
            }
        }
        const std::string* chosen = &draws_.of(*frames);
        while (!picture && chosen->find("picture") != std::string::npos) chosen = &draws_.of(*frames);
        const std::string& frame = *chosen;
        out_.text = filled(frame, parts);
        if (scene_.light != Light::none && draws_.chance(0.3)) {
            out_.stated.light = true;
            if (out_.text.back() == '.') out_.text.pop_back();
            out_.text +=
                filled(draws_.of(wording::light_tails()), {{'s', std::string(name_of(scene_.light))}});
        }
        reserved_ = hash_of(frame + "|" + first.gerund) % 10 == 0;
        return out_;
    }

    bool reserved() const { return reserved_; }

private:
    // Without its article: "small red striped circle".
    std::string thing(size_t i) {
        const Object& o = scene_.objects[i];
        Stated::OfObject& stated = out_.stated.objects[i];
        bool sized = o.motion != Motion::grow && o.motion != Motion::shrink &&
                     scene_.camera.motion != Motion::zoom_in && scene_.camera.motion != Motion::zoom_out;
        stated.size = sized && draws_.chance(o.size == Size::medium ? 0.3 : 0.75);
        stated.texture = draws_.chance(o.texture == Texture::plain ? 0.06 : 0.75);
        stated.color = options_.complete || !draws_.chance(0.06);
        stated.shape = options_.complete || !stated.color || !draws_.chance(0.05);
        std::string size = stated.size ? word_of(draws_, wording::sizes(o.size)) : "";
        std::string color = stated.color ? word_of(draws_, wording::colors(o.color)) : "";
        std::string noun =
            stated.shape ? word_of(draws_, wording::shapes(o.shape)) : draws_.of(wording::any_shape());
        std::string texture, tail;
        if (stated.texture) {
            const auto& tails = wording::texture_tails(o.texture);
            if (!tails.empty() && draws_.chance(0.25)) {
                tail = draws_.of(tails);
            } else {
                texture = word_of(draws_, wording::textures(o.texture));
            }
        }
        if (draws_.chance(0.08) && !size.empty() && !color.empty() && texture.empty())
            return joined({noun, "that is", size, "and", color, tail});
        if (draws_.chance(0.3)) std::swap(size, texture);
        return joined({size, texture, color, noun, tail});
    }

    // Adds {b} "over a blue background", {n} "blue background", {l} "the background is blue".
    std::string background(std::vector<std::pair<char, std::string>>& parts) {
        out_.stated.background = true;
        out_.stated.pattern = draws_.chance(scene_.pattern == Texture::plain ? 0.06 : 0.75);
        std::string color = word_of(draws_, wording::colors(scene_.background));
        std::string pattern = out_.stated.pattern ? word_of(draws_, wording::textures(scene_.pattern)) : "";
        std::string noun = word_of(draws_, wording::backgrounds());
        std::string phrase =
            draws_.chance(0.7) ? joined({pattern, color, noun}) : joined({color, pattern, noun});
        parts.emplace_back('b', draws_.of(wording::places()) + " " + with_article(phrase));
        parts.emplace_back('n', phrase);
        parts.emplace_back('l', joined({"the", noun, "is", pattern, pattern.empty() ? "" : "and", color}));
        return phrase;
    }

    Phrase motion(Motion motion, Speed speed, bool& stated, bool* speed_stated) {
        stated = true;
        const auto& phrases = wording::motions(motion);
        const auto& [finite, gerund] =
            phrases[static_cast<size_t>(draws_.below(static_cast<int>(phrases.size())))];
        Phrase phrase{finite, gerund};
        bool say = motion != Motion::still && draws_.chance(speed == Speed::normal ? 0.15 : 0.6);
        if (!say) return phrase;
        if (speed_stated != nullptr) *speed_stated = true;
        const std::string& adverb = draws_.of(wording::speeds(speed));
        bool before = adverb.find(' ') == std::string::npos && adverb != "fast" && !is_camera(motion) &&
                      draws_.chance(0.3);
        for (std::string* text : {&phrase.finite, &phrase.gerund})
            *text = before ? adverb + " " + *text : *text + " " + adverb;
        return phrase;
    }

    const Scene& scene_;
    Draws draws_;
    CaptionOptions options_;
    Caption out_;
    bool reserved_ = false;
};

std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    for (size_t i = 0; i <= text.size(); ++i) {
        unsigned char c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
        bool letter = std::isalpha(c) != 0 || c >= 0x80 || ((c == '-' || c == '\'') && !word.empty());
        if (letter) {
            word += static_cast<char>(std::tolower(c));
        } else if (!word.empty()) {
            words.push_back(word);
            word.clear();
        }
        if (c == '{') i += 2;  // a placeholder of the tables
    }
    return words;
}

}  // namespace

Caption make_caption(const Scene& scene, int64_t number, const CaptionOptions& options) {
    check(!scene.objects.empty(), "a scene without objects has no caption");
    for (int64_t attempt = 0;; ++attempt) {
        std::string stream =
            join("caption ", scene.index, ' ', number, ' ', attempt, options.complete ? " c" : "");
        Writer writer(scene, Draws(scene.seed, hash_of(stream)), options);
        Caption caption = writer.write();
        // Pictures have few sentences and no motion: any of them will do.
        bool wanted = writer.reserved() == (options.wording == Split::held_out);
        if (wanted || scene.seconds == 0 || attempt > 2000) return caption;
    }
}

const std::set<std::string>& known_words() {
    static const std::set<std::string> known = [] {
        std::set<std::string> words;
        for (const std::string& text : wording::all_texts())
            for (const std::string& word : words_of(text)) words.insert(word);
        return words;
    }();
    return known;
}

std::vector<std::string> unknown_words(std::string_view prompt) {
    std::vector<std::string> unknown;
    for (const std::string& word : words_of(prompt)) {
        if (known_words().count(word) == 0 &&
            std::find(unknown.begin(), unknown.end(), word) == unknown.end())
            unknown.push_back(word);
    }
    return unknown;
}

std::string advice(std::string_view prompt) {
    std::vector<std::string> words = words_of(prompt), unknown = unknown_words(prompt);
    bool names_shape = false;
    for (int s = 0; s < kShapes; ++s)
        for (const std::string& name : wording::shapes(static_cast<Shape>(s)))
            for (const std::string& word : words_of(name))
                names_shape = names_shape || std::find(words.begin(), words.end(), word) != words.end();
    if (names_shape && unknown.empty()) return "";
    std::string out = "the embedded model draws a small world of shapes";
    if (!unknown.empty()) {
        out += "; it does not know";
        for (size_t i = 0; i < std::min<size_t>(unknown.size(), 8); ++i)
            out += (i == 0 ? " '" : ", '") + unknown[i] + "'";
        if (unknown.size() > 8) out += join(" and ", unknown.size() - 8, " more words");
    } else if (!names_shape) {
        out += "; the prompt names none of them";
    }
    auto list = [&](std::string_view what, int n, auto name) {
        out += join(". ", what, ": ");
        for (int i = 0; i < n; ++i) out += (i == 0 ? "" : ", ") + std::string(name(i));
    };
    list("Shapes", kShapes, [](int i) { return name_of(static_cast<Shape>(i)); });
    list("Colours", kColors, [](int i) { return name_of(static_cast<Color>(i)); });
    list("Looks", kTextures, [](int i) { return name_of(static_cast<Texture>(i)); });
    list("Motions", kMotions, [](int i) { return wording::motions(static_cast<Motion>(i)).front().first; });
    return out + ". For example: a small red circle moves left over a blue background";
}

}  // namespace sana::world
