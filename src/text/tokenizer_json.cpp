// Reading tokenizer.json.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "text/tokenizer_tables.h"

namespace sana {

using nlohmann::json;

namespace {

constexpr int64_t kMostPieces = 1 << 22;
constexpr int64_t kMostBytes = int64_t{256} << 20;

// A field that is there and not null.
const json* field(const json& object, const char* key) {
    auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text_of(const json* value, const std::string& what) {
    check_input(value != nullptr && value->is_string(), what, " is missing or not a string");
    return value->get<std::string>();
}

int32_t id_of(const json& value, const std::string& what) {
    check_input(value.is_number_integer() && value >= 0 && value < kMostPieces, what,
                " has an id that is not in 0 .. ", kMostPieces);
    return value.get<int32_t>();
}

struct Reader {
    const json& file;
    const std::string& source;
    Tokenizer::Tables& tables;

    void piece(const std::string& text, int32_t id) {
        if (static_cast<size_t>(id) >= tables.pieces.size())
            tables.pieces.resize(static_cast<size_t>(id) + 1);
        std::string& slot = tables.pieces[static_cast<size_t>(id)];
        check_input(slot.empty() || slot == text, source, ": id ", id, " stands for two pieces");
        slot = text;
        auto [it, fresh] = tables.ids.emplace(text, id);
        check_input(fresh || it->second == id, source, ": a piece has the ids ", it->second, " and ", id);
    }

    void read_model() {
        const json* model = field(file, "model");
        check_input(model != nullptr && model->is_object(), source,
                    ": has no model; is this a tokenizer.json?");
        std::string type = field(*model, "type") != nullptr
                               ? text_of(field(*model, "type"), source + ": model.type")
                               : "BPE";
        check_input(type == "BPE", source, ": the model type is ", type, "; only BPE is supported");
        for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
            const json* value = field(*model, key);
            bool unset = value == nullptr || (value->is_string() && value->get<std::string>().empty()) ||
                         (value->is_number() && *value == 0);
            check_input(unset, source, ": model.", key, " is set; that is not supported");
        }
        const json* ignore = field(*model, "ignore_merges");
        check_input(ignore == nullptr || *ignore == false, source, ": model.ignore_merges is not supported");
        const json* vocabulary = field(*model, "vocab");
        check_input(vocabulary != nullptr && vocabulary->is_object() && !vocabulary->empty(), source,
                    ": model.vocab is missing or empty");
        tables.ids.reserve(vocabulary->size() * 2);
        for (auto& [text, id] : vocabulary->items())
            piece(text, id_of(id, source + ": piece " + text.substr(0, 40)));
        read_merges(*model);
        tables.bytes.fill(-1);
        const json* fallback = field(*model, "byte_fallback");
        if (fallback != nullptr && *fallback == true) {
            for (int i = 0; i < 256; ++i) {
                char name[8];
                std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(i));
                auto it = tables.ids.find(std::string_view(name));
                // Gemma's file spells the piece of the byte 0x09 as a tab.
                if (it == tables.ids.end()) it = tables.ids.find(std::string(1, static_cast<char>(i)));
                if (it != tables.ids.end()) tables.bytes[static_cast<size_t>(i)] = it->second;
            }
        }
        if (const json* unknown = field(*model, "unk_token")) {
            auto it = tables.ids.find(text_of(unknown, source + ": model.unk_token"));
            check_input(it != tables.ids.end(), source, ": model.unk_token is not a piece of the vocabulary");
            tables.unknown = it->second;
        }
        const json* fuse = field(*model, "fuse_unk");
        tables.fuse_unknown = fuse != nullptr && *fuse == true;
    }

    void read_merges(const json& model) {
        const json* merges = field(model, "merges");
        check_input(merges != nullptr && merges->is_array(), source,
                    ": model.merges is missing or not a list");
        tables.merges.reserve(merges->size() * 2);
        int32_t rank = 0;
        for (const json& merge : *merges) {
            std::string left, right;
            if (merge.is_string()) {
                const std::string& text = merge.get_ref<const std::string&>();
                size_t space = text.find(' ');
                check_input(space != std::string::npos, source, ": merge ", rank, " is not two pieces");
                left = text.substr(0, space);
                right = text.substr(space + 1);
            } else {
                check_input(
                    merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
                    source, ": merge ", rank, " is not two pieces");
                left = merge[0].get<std::string>();
                right = merge[1].get<std::string>();
            }
            auto a = tables.ids.find(left), b = tables.ids.find(right), whole = tables.ids.find(left + right);
            check_input(a != tables.ids.end() && b != tables.ids.end() && whole != tables.ids.end(), source,
                        ": merge ", rank, " names a piece that is not in the vocabulary");
            tables.merges.emplace(Tokenizer::Tables::pair(a->second, b->second),
                                  Tokenizer::Tables::Merge{rank, whole->second});
            ++rank;
        }
    }

    void read_added() {
        const json* added = field(file, "added_tokens");
        if (added == nullptr) return;
        check_input(added->is_array(), source, ": added_tokens is not a list");
        for (const json& token : *added) {
            check_input(token.is_object() && token.contains("id"), source,
                        ": an added token is not an object with an id");
            std::string text = text_of(field(token, "content"), source + ": content of an added token");
            check_input(!text.empty(), source, ": an added token is empty");
            for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
                const json* value = field(token, flag);
                check_input(value == nullptr || *value == false, source, ": added token ", text, " has ",
                            flag, ", which is not supported");
            }
            int32_t id = id_of(token.at("id"), source + ": added token " + text);
            piece(text, id);
            tables.added[static_cast<unsigned char>(text[0])].push_back({text, id});
        }
        for (auto& list : tables.added) {
            std::stable_sort(list.begin(), list.end(),
                             [](auto& a, auto& b) { return a.text.size() > b.text.size(); });
        }
    }

    void read_normaliser() {
        const json* normaliser = field(file, "normalizer");
        if (normaliser != nullptr && field(*normaliser, "normalizers") != nullptr &&
            normaliser->at("normalizers").size() == 1) {
            normaliser = &normaliser->at("normalizers")[0];
        }
        if (normaliser != nullptr) {
            std::string type = text_of(field(*normaliser, "type"), source + ": normalizer.type");
            const json* pattern = field(*normaliser, "pattern");
            check_input(type == "Replace" && pattern != nullptr && field(*pattern, "String") != nullptr,
                        source, ": the normalizer is ", type, "; only Replace of a string is supported");
            tables.replace_from = text_of(field(*pattern, "String"), source + ": normalizer.pattern");
            tables.replace_to = text_of(field(*normaliser, "content"), source + ": normalizer.content");
        }
        const json* split = field(file, "pre_tokenizer");
        if (split == nullptr) return;
        // A split at spaces is inert behind a normaliser that replaces them.
        const json* pattern = field(*split, "pattern");
        bool inert = field(*split, "type") != nullptr && split->at("type") == "Split" && pattern != nullptr &&
                     field(*pattern, "String") != nullptr && pattern->at("String") == tables.replace_from &&
                     !tables.replace_from.empty();
        check_input(inert, source, ": this pre_tokenizer is not supported: ",
                    split->dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 100));
    }

    void read_begin() {
        const json* processor = field(file, "post_processor");
        if (processor == nullptr) return;
        std::string type = text_of(field(*processor, "type"), source + ": post_processor.type");
        check_input(type == "TemplateProcessing" && field(*processor, "single") != nullptr &&
                        processor->at("single").is_array(),
                    source, ": the post_processor is ", type, "; only TemplateProcessing is supported");
        bool before = true;
        for (const json& part : processor->at("single")) {
            if (part.contains("Sequence")) {
                before = false;
                continue;
            }
            check_input(before && part.is_object() && part.contains("SpecialToken"), source,
                        ": the post_processor puts something behind the text; that is not supported");
            std::string name = text_of(field(part.at("SpecialToken"), "id"), source + ": post_processor");
            auto it = tables.ids.find(name);
            check_input(it != tables.ids.end(), source, ": the post_processor's ", name,
                        " is not in the vocabulary");
            tables.begin.push_back(it->second);
        }
    }
};

}  // namespace

Tokenizer Tokenizer::parse(const std::string& text, const std::string& source) {
    // Depth is bounded before anything is built: a tokenizer.json is 6 deep.
    bool too_deep = false;
    auto watch = [&](int depth, json::parse_event_t, json&) {
        too_deep = too_deep || depth > 32;
        return !too_deep;
    };
    json file;
    try {
        file = json::parse(text, watch, false);
        check_input(!too_deep && !file.is_discarded() && file.is_object(), source, ": is not valid JSON");
        auto tables = std::make_unique<Tables>();
        Reader reader{file, source, *tables};
        reader.read_model();
        reader.read_added();
        reader.read_normaliser();
        reader.read_begin();
        return Tokenizer(std::move(tables));
    } catch (const json::exception& error) {
        fail_input(source, ": is not a tokenizer.json of the expected form: ", error.what());
    }
}

Tokenizer Tokenizer::load(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    std::string file = fs::is_directory(path, ignored) ? path + "/tokenizer.json" : path;
    std::ifstream in(file, std::ios::binary | std::ios::ate);
    check_input(in.good() && !fs::is_directory(file, ignored), file,
                ": cannot be read; a tokenizer.json is expected there");
    int64_t bytes = in.tellg();
    check_input(bytes > 0 && bytes <= kMostBytes, file, ": has ", bytes, " bytes; a tokenizer.json has 1 .. ",
                kMostBytes);
    std::string text(static_cast<size_t>(bytes), '\0');
    in.seekg(0);
    in.read(text.data(), bytes);
    check_input(in.gcount() == bytes, file, ": could not be read to its end");
    return parse(text, file);
}

}  // namespace sana
