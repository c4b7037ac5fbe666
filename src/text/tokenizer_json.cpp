#include "text/tokenizer_json.h"

#include "core/check.h"

namespace sana {

using nlohmann::json;

namespace {

class Handler final : public nlohmann::json_sax<json> {
public:
    Handler(const std::string& source, TokenizerJson& out) : source_(source), out_(out) {}

    bool null() override { return value(nullptr); }
    bool boolean(bool v) override { return value(v); }
    bool number_integer(number_integer_t v) override { return value(v); }
    bool number_float(number_float_t v, const string_t&) override { return value(v); }
    bool binary(binary_t&) override { return false; }
    bool number_unsigned(number_unsigned_t v) override {
        if (where_ != Where::Vocab) return value(v);
        check_input(v < static_cast<uint64_t>(kMostPieces), source_, ": piece ", shown(key_), " has the id ",
                    v, "; ids are below ", kMostPieces);
        check_input(out_.pieces.add(key_, static_cast<int32_t>(v)), source_, ": the piece ", shown(key_),
                    " or its id ", v, " is there twice");
        return true;
    }
    bool string(string_t& v) override {
        if (where_ == Where::Merges) {
            size_t space = v.find(' ');
            check_input(space != std::string::npos, source_, ": merge ", out_.merges.size(),
                        " is not two pieces");
            add_merge(std::string_view(v).substr(0, space), std::string_view(v).substr(space + 1));
            return true;
        }
        if (where_ != Where::MergePair) return value(std::move(v));
        pair_.push_back(std::move(v));
        return true;
    }
    bool key(string_t& v) override {
        key_ = std::move(v);
        return true;
    }
    bool start_object(size_t) override {
        if (where_ == Where::Other && in_model() && key_ == "vocab") {
            where_ = Where::Vocab;
            return true;
        }
        return open(json::object());
    }
    bool start_array(size_t) override {
        if (where_ == Where::Merges) {
            where_ = Where::MergePair;
            pair_.clear();
            return true;
        }
        if (where_ == Where::Other && in_model() && key_ == "merges") {
            where_ = Where::Merges;
            out_.has_merges = true;
            return true;
        }
        return open(json::array());
    }
    bool end_object() override { return close(); }
    bool end_array() override {
        if (where_ != Where::MergePair) return close();
        check_input(pair_.size() == 2, source_, ": merge ", out_.merges.size(), " is not two pieces");
        add_merge(pair_[0], pair_[1]);
        where_ = Where::Merges;
        return true;
    }
    bool parse_error(size_t, const std::string&, const json::exception& error) override {
        fail_input(source_, ": is not valid JSON (damaged, or not downloaded to its end?): ", error.what());
    }

private:
    enum class Where { Other, Vocab, Merges, MergePair };
    static constexpr size_t kMostDepth = 32;         // a tokenizer.json is 6 deep
    static constexpr int64_t kMostValues = 1 << 21;  // outside the two lists

    static std::string shown(const std::string& text) { return '"' + text.substr(0, 40) + '"'; }

    // Directly inside the object "model" of the file.
    bool in_model() const { return open_.size() == 2 && open_[1] == model_ && open_[1]->is_object(); }

    json* put(json v) {
        check_input(++values_ <= kMostValues, source_, ": has more than ", kMostValues,
                    " values besides its vocabulary; is this a tokenizer.json?");
        if (open_.empty()) {
            out_.rest = std::move(v);
            return &out_.rest;
        }
        json& top = *open_.back();
        if (top.is_array()) {
            top.push_back(std::move(v));
            return &top.back();
        }
        json& slot = top[key_];
        slot = std::move(v);
        if (open_.size() == 1 && key_ == "model") model_ = &slot;
        return &slot;
    }
    void expect_no_list() const {
        check_input(where_ != Where::Vocab, source_, ": piece ", shown(key_),
                    " has no whole number from 0 on as its id");
        check_input(where_ == Where::Other, source_, ": merge ", out_.merges.size(), " is not two pieces");
    }
    bool value(json v) {
        expect_no_list();
        put(std::move(v));
        return true;
    }
    // Containers are filled in place: pointers to the open ones stay good, because only the innermost one grows.
    bool open(json v) {
        expect_no_list();
        check_input(open_.size() < kMostDepth, source_, ": is nested more than ", kMostDepth, " deep");
        open_.push_back(put(std::move(v)));
        return true;
    }
    bool close() {
        if (where_ == Where::Other) {
            open_.pop_back();
        } else {
            where_ = Where::Other;
        }
        return true;
    }
    void add_merge(std::string_view left, std::string_view right) {
        check_input(out_.merges.size() < static_cast<size_t>(kMostPieces), source_, ": has more than ",
                    kMostPieces, " merges");
        out_.merges.push_back({out_.merge_text.size(), static_cast<uint32_t>(left.size()),
                               static_cast<uint32_t>(right.size())});
        out_.merge_text += left;
        out_.merge_text += right;
    }

    const std::string& source_;
    TokenizerJson& out_;
    Where where_ = Where::Other;
    std::vector<json*> open_;  // the file, then the containers down to the innermost open one
    const json* model_ = nullptr;
    std::string key_;
    std::vector<std::string> pair_;
    int64_t values_ = 0;
};

}  // namespace

TokenizerJson read_tokenizer_json(const std::string& text, const std::string& source) {
    TokenizerJson out;
    Handler handler(source, out);
    json::sax_parse(text, &handler);
    return out;
}

}  // namespace sana
