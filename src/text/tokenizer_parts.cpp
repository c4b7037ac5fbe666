// The components of a tokenizer.json besides its vocabulary, and the tokenizer out of all of it.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "text/tokenizer_json.h"

namespace sana {

using nlohmann::json;

namespace {

// A field that is there and not null.
const json* field(const json& object, const char* key) {
    auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text_of(const json* value, const std::string& what) {
    check_input(value != nullptr && value->is_string(), what, " is missing or not a string");
    return value->get<std::string>();
}

bool flag_of(const json& object, const char* key, const std::string& what) {
    const json* value = field(object, key);
    check_input(value == nullptr || value->is_boolean(), what, ": ", key, " is not true or false");
    return value != nullptr && value->get<bool>();
}

struct Reader {
    const json& file;
    const std::string& source;
    Tokenizer::Tables& tables;

    int32_t id_of(const json* value, const std::string& what) const {
        check_input(value != nullptr && value->is_number_unsigned() && *value < kMostPieces, what,
                    " has no id in 0 .. ", kMostPieces - 1);
        return value->get<int32_t>();
    }

    const json& model() const {
        const json* model = field(file, "model");
        check_input(model != nullptr && model->is_object(), source,
                    ": has no model; is this a tokenizer.json?");
        return *model;
    }

    void read_model() {
        const json& m = model();
        // Old files do not name the type of their only model.
        std::string type =
            field(m, "type") == nullptr ? "BPE" : text_of(field(m, "type"), source + ": model.type");
        check_input(type == "BPE", source, ": the model type is ", type, "; only BPE is supported");
        for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
            const json* value = field(m, key);
            bool unset = value == nullptr ||
                         (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                         (value->is_number() && *value == 0);
            check_input(unset, source, ": model.", key, " is set; that is not supported");
        }
        check_input(!flag_of(m, "ignore_merges", source), source, ": model.ignore_merges is not supported");
        check_input(tables.pieces.end() > 0, source, ": model.vocab is missing or empty");
        tables.bytes.fill(-1);
        for (int i = 0; i < 256 && flag_of(m, "byte_fallback", source); ++i) {
            char name[8];
            std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(i));
            tables.bytes[static_cast<size_t>(i)] = tables.pieces.find(name);
        }
        if (const json* unknown = field(m, "unk_token")) {
            tables.unknown = tables.pieces.find(text_of(unknown, source + ": model.unk_token"));
            check_input(tables.unknown >= 0, source, ": model.unk_token is not a piece of the vocabulary");
        }
        tables.fuse_unknown = flag_of(m, "fuse_unk", source);
    }

    void read_merges(const TokenizerJson& streamed) {
        check_input(streamed.has_merges, source, ": model.merges is missing or not a list");
        tables.merges.reserve(streamed.merges.size());
        int32_t rank = 0;
        for (const auto& [begin, left, right] : streamed.merges) {
            std::string_view whole =
                std::string_view(streamed.merge_text).substr(begin, size_t{left} + right);
            int32_t a = tables.pieces.find(whole.substr(0, left)), b = tables.pieces.find(whole.substr(left));
            int32_t id = tables.pieces.find(whole);
            check_input(a >= 0 && b >= 0 && id >= 0, source, ": merge ", rank, " (", whole.substr(0, left),
                        " + ", whole.substr(left), ") names a piece that is not in the vocabulary");
            tables.merges.add(a, b, {rank, id});
            ++rank;
        }
    }

    void read_normaliser(const json& part) {
        std::string type = text_of(field(part, "type"), source + ": normalizer.type");
        if (type == "Sequence") {
            const json* list = field(part, "normalizers");
            check_input(list != nullptr && list->is_array(), source,
                        ": normalizer has no list of normalizers");
            for (const json& one : *list) read_normaliser(one);
            return;
        }
        const json* pattern = field(part, "pattern");
        check_input(type == "Replace" && pattern != nullptr && field(*pattern, "String") != nullptr, source,
                    ": the normalizer is ", type, "; only Replace of a string is supported");
        std::string from = text_of(field(*pattern, "String"), source + ": normalizer.pattern");
        check_input(!from.empty(), source, ": the normalizer replaces an empty string");
        check_input(tables.replaces.size() < 16, source, ": has more than 16 normalizers");
        tables.replaces.push_back({from, text_of(field(part, "content"), source + ": normalizer.content")});
    }

    void read_split(const json& part) {
        std::string type = text_of(field(part, "type"), source + ": pre_tokenizer.type");
        if (type == "Sequence") {
            const json* list = field(part, "pretokenizers");
            check_input(list != nullptr && list->is_array(), source,
                        ": pre_tokenizer has no list of pretokenizers");
            for (const json& one : *list) read_split(one);
            return;
        }
        const json* pattern = field(part, "pattern");
        check_input(type == "Split" && pattern != nullptr && field(*pattern, "String") != nullptr, source,
                    ": the pre_tokenizer is ", type, "; only Split at a string is supported");
        check_input(!flag_of(part, "invert", source + ": pre_tokenizer"), source,
                    ": a pre_tokenizer with invert is not supported");
        Split split{text_of(field(*pattern, "String"), source + ": pre_tokenizer.pattern"), {}};
        check_input(!split.pattern.empty(), source, ": the pre_tokenizer splits at an empty string");
        std::string behavior = text_of(field(part, "behavior"), source + ": pre_tokenizer.behavior");
        constexpr std::pair<const char*, SplitBehavior> kBehaviors[] = {
            {"Removed", SplitBehavior::Removed},
            {"Isolated", SplitBehavior::Isolated},
            {"Contiguous", SplitBehavior::Contiguous},
            {"MergedWithPrevious", SplitBehavior::MergedWithPrevious},
            {"MergedWithNext", SplitBehavior::MergedWithNext},
        };
        const auto* found = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                         [&](const auto& known) { return known.first == behavior; });
        check_input(found != std::end(kBehaviors), source, ": the pre_tokenizer's behavior ", behavior,
                    " is not known");
        split.behavior = found->second;
        check_input(tables.splits.size() < 16, source, ": has more than 16 pre_tokenizers");
        tables.splits.push_back(split);
    }

    void read_added() {
        const json* list = field(file, "added_tokens");
        if (list == nullptr) return;
        check_input(list->is_array(), source, ": added_tokens is not a list");
        for (const json& token : *list) {
            std::string text = text_of(field(token, "content"), source + ": content of an added token");
            std::string what = source + ": added token " + text.substr(0, 40);
            check_input(!text.empty() && text.size() <= 256, what, " has ", text.size(),
                        " bytes; 1 .. 256 are supported");
            for (const char* flag : {"single_word", "lstrip", "rstrip"})
                check_input(!flag_of(token, flag, what), what, " has ", flag, ", which is not supported");
            int32_t id = id_of(field(token, "id"), what);
            if (tables.pieces.find(text) != id) {
                check_input(tables.pieces.add(text, id), what, " has the id ", id,
                            ", but the piece or the id is in the vocabulary already");
            }
            // A token that counts as text for the normaliser is looked for behind it, in its normalised form.
            bool by_default = !flag_of(token, "special", what);
            bool after =
                field(token, "normalized") == nullptr ? by_default : flag_of(token, "normalized", what);
            if (!after) {
                tables.added.add(text, id);
            } else if (std::string form = normalised(text, tables.replaces); !form.empty()) {
                tables.added_normalised.add(form, id);
            }
        }
    }

    void read_begin() {
        const json* processor = field(file, "post_processor");
        if (processor == nullptr) return;
        std::string type = text_of(field(*processor, "type"), source + ": post_processor.type");
        const json* single = field(*processor, "single");
        check_input(type == "TemplateProcessing" && single != nullptr && single->is_array(), source,
                    ": the post_processor is ", type, "; only TemplateProcessing is supported");
        const json* special = field(*processor, "special_tokens");
        bool before = true;
        for (const json& part : *single) {
            if (field(part, "Sequence") != nullptr) {
                before = false;
                continue;
            }
            const json* token = field(part, "SpecialToken");
            check_input(before && token != nullptr, source,
                        ": the post_processor puts something behind the text; that is not supported");
            std::string name = text_of(field(*token, "id"), source + ": post_processor");
            const json* known = special != nullptr ? field(*special, name.c_str()) : nullptr;
            const json* ids = known != nullptr ? field(*known, "ids") : nullptr;
            if (ids != nullptr && ids->is_array()) {
                for (const json& id : *ids)
                    put_begin(id_of(&id, source + ": the post_processor's " + name), name);
            } else {
                put_begin(tables.pieces.find(name), name);
            }
        }
        check_input(!before, source, ": the post_processor leaves the text out");
    }
    void put_begin(int32_t id, const std::string& name) {
        check_input(tables.pieces.has(id), source, ": the post_processor's ", name,
                    " is not in the vocabulary");
        check_input(tables.begin.size() < 16, source,
                    ": the post_processor puts more than 16 tokens before a text");
        tables.begin.push_back(id);
    }
};

}  // namespace

Tokenizer Tokenizer::parse(const std::string& text, const std::string& source) {
    TokenizerJson streamed = read_tokenizer_json(text, source);
    auto tables = std::make_unique<Tables>();
    tables->pieces = std::move(streamed.pieces);
    Reader reader{streamed.rest, source, *tables};
    reader.read_model();
    reader.read_merges(streamed);
    if (const json* part = field(streamed.rest, "normalizer")) reader.read_normaliser(*part);
    if (const json* part = field(streamed.rest, "pre_tokenizer")) reader.read_split(*part);
    reader.read_added();
    reader.read_begin();
    return Tokenizer(std::move(tables));
}

Tokenizer Tokenizer::load(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    fs::path file = path;
    if (fs::is_directory(file, ignored)) {
        file /= "tokenizer.json";
        if (!fs::exists(file, ignored) && fs::exists(file.string() + ".xz", ignored))
            fail_input(file.string(), ".xz: is compressed; unpack it with: xz -dk ", file.string(), ".xz");
    }
    check_input(file.extension() != ".xz", path, ": is compressed; unpack it with: xz -dk ", path);
    std::ifstream in(file, std::ios::binary | std::ios::ate);
    check_input(in.good() && !fs::is_directory(file, ignored), file.string(),
                ": cannot be read; a tokenizer.json is expected there");
    int64_t bytes = in.tellg();
    check_input(bytes > 0 && bytes <= kMostTokenizerBytes, file.string(), ": has ", bytes,
                " bytes; a tokenizer.json has 1 .. ", kMostTokenizerBytes);
    std::string text(static_cast<size_t>(bytes), '\0');
    in.seekg(0);
    in.read(text.data(), bytes);
    check_input(in.gcount() == bytes, file.string(), ": could not be read to its end");
    return parse(text, file.string());
}

}  // namespace sana
