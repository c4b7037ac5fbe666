#include "io/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "core/check.h"
#include "io/bounds.h"
#include "io/describe.h"

namespace sana {

namespace {

using nlohmann::json;

struct DTypeName {
    DType dtype;
    std::string_view name;
};

constexpr DTypeName kDTypes[] = {
    {DType::F64, "F64"},        {DType::F32, "F32"},        {DType::F16, "F16"}, {DType::BF16, "BF16"},
    {DType::F8E4M3, "F8_E4M3"}, {DType::F8E5M2, "F8_E5M2"}, {DType::I64, "I64"}, {DType::I32, "I32"},
    {DType::I16, "I16"},        {DType::I8, "I8"},          {DType::U8, "U8"},   {DType::Bool, "BOOL"},
};

// Fills the header from the parser's events: the form is fixed and two levels deep, so there is no tree to build, and
// duplicate keys, which a tree would swallow, are seen.
class HeaderReader : public nlohmann::json_sax<json> {
public:
    HeaderReader(SafetensorsHeader& header, const std::string& path) : header_(header), path_(path) {}

    bool null() override { return unexpected("null"); }
    bool boolean(bool) override { return unexpected("true or false"); }
    bool number_integer(number_integer_t value) override {
        fail_input(where(), "the number ", value, " is negative", kDamaged);
    }
    bool number_float(number_float_t, const string_t& text) override {
        fail_input(where(), "the number ", in_quotes(text), " is not a 64-bit integer", kDamaged);
    }
    bool binary(json::binary_t&) override { return unexpected("binary data"); }
    bool number_unsigned(number_unsigned_t value) override {
        if (place_ != Place::shape && place_ != Place::offsets) return unexpected("a number");
        if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
            fail_input(where(), "the number ", value, " does not fit 63 bits", kDamaged);
        }
        auto number = static_cast<int64_t>(value);
        if (place_ == Place::shape) {
            if (entry_.shape.rank() == Shape::kMaxRank) {
                fail_input(where(), "has more than ", Shape::kMaxRank, " dimensions, which is not supported");
            }
            entry_.shape.push_back(number);
        } else {
            if (n_offsets_ == 2) fail_input(where(), "data_offsets has more than two numbers", kDamaged);
            (n_offsets_ == 0 ? entry_.begin : entry_.end) = number;
            ++n_offsets_;
        }
        return true;
    }
    bool string(string_t& value) override {
        if (place_ == Place::metadata && have_key_) {
            if (!header_.metadata.emplace(key_, value).second) {
                fail_input(where(), "the metadata key ", in_quotes(key_), " is there twice", kDamaged);
            }
            have_key_ = false;
            return true;
        }
        if (place_ == Place::dtype) {
            auto found = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                      [&](const DTypeName& d) { return d.name == value; });
            if (found == std::end(kDTypes)) {
                fail_input(where(), "dtype ", in_quotes(value),
                           " is not supported (F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U8 BOOL are)");
            }
            entry_.dtype = found->dtype;
            place_ = Place::tensor;
            return true;
        }
        return unexpected("text");
    }
    bool start_object(std::size_t) override {
        if (place_ == Place::nothing) {
            place_ = Place::top;
        } else if (place_ == Place::name) {
            place_ = name_ == "__metadata__" ? Place::metadata : Place::tensor;
            entry_ = {};
            n_offsets_ = 0;
            have_dtype_ = have_shape_ = have_offsets_ = false;
        } else {
            return unexpected("an object");
        }
        return true;
    }
    bool key(string_t& key) override {
        if (place_ == Place::top) {
            name_ = key;
            bool again = key == "__metadata__" ? have_metadata_ : header_.entries.count(key) != 0;
            if (again) fail_input(where(), "is there twice", kDamaged);
            if (key == "__metadata__") have_metadata_ = true;
            place_ = Place::name;
        } else if (place_ == Place::metadata) {
            key_ = key;
            have_key_ = true;
        } else {  // tensor
            bool* have = nullptr;
            if (key == "dtype") {
                place_ = Place::dtype, have = &have_dtype_;
            } else if (key == "shape") {
                place_ = Place::before_shape, have = &have_shape_;
            } else if (key == "data_offsets") {
                place_ = Place::before_offsets, have = &have_offsets_;
            } else {
                fail_input(where(), "has the unknown key ", in_quotes(key),
                           " (dtype, shape, data_offsets are known)", kDamaged);
            }
            if (*have) fail_input(where(), "has ", key, " twice", kDamaged);
            *have = true;
        }
        return true;
    }
    bool end_object() override {
        if (place_ == Place::tensor) {
            if (!have_dtype_ || !have_shape_ || !have_offsets_ || n_offsets_ != 2) {
                fail_input(where(), "does not give dtype, shape and two data_offsets", kDamaged);
            }
            header_.entries.emplace(name_, entry_);
        }
        place_ = place_ == Place::top ? Place::nothing : Place::top;
        name_.clear();
        return true;
    }
    bool start_array(std::size_t) override {
        if (place_ == Place::before_shape) {
            place_ = Place::shape;
        } else if (place_ == Place::before_offsets) {
            place_ = Place::offsets;
        } else {
            return unexpected("a list");
        }
        return true;
    }
    bool end_array() override {
        place_ = Place::tensor;
        return true;
    }
    bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
        fail_input(path_, ": the header is not valid JSON (at byte ", position, " of it)", kDamaged);
    }

private:
    enum class Place {
        nothing,
        top,
        name,
        metadata,
        tensor,
        dtype,
        before_shape,
        shape,
        before_offsets,
        offsets
    };
    static constexpr const char* kDamaged =
        ": the file is damaged or was written wrongly: download or write it again";

    std::string where() const {
        return name_.empty() ? path_ + ": the header " : path_ + ": tensor " + in_quotes(name_) + ": ";
    }
    bool unexpected(const char* what) const {
        fail_input(where(), "holds ", what, " where the format has none", kDamaged);
    }

    SafetensorsHeader& header_;
    const std::string& path_;
    Place place_ = Place::nothing;
    std::string name_, key_;
    SafetensorsEntry entry_;
    int n_offsets_ = 0;
    bool have_dtype_ = false, have_shape_ = false, have_offsets_ = false, have_metadata_ = false,
         have_key_ = false;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, int64_t data_bytes,
                                           const std::string& path) {
    SafetensorsHeader header;
    HeaderReader reader(header, path);
    json::sax_parse(text.begin(), text.end(), &reader);

    std::vector<std::pair<const std::string*, const SafetensorsEntry*>> by_place;
    for (const auto& [name, entry] : header.entries) {
        std::optional<int64_t> size = checked_bytes(entry.dtype, entry.shape);
        if (!size) {
            fail_input(path, ": tensor ", in_quotes(name), ": the size of shape ", entry.shape,
                       " overflows 63 bits: the file is damaged");
        }
        if (entry.begin > entry.end || entry.end - entry.begin != *size) {
            fail_input(path, ": tensor ", in_quotes(name), ": ", safetensors_dtype(entry.dtype), " of shape ",
                       entry.shape, " is ", *size, " bytes, but its data_offsets are ", entry.begin, " .. ",
                       entry.end, ": the file is damaged or was written wrongly");
        }
        if (entry.end > data_bytes) {
            fail_input(path, ": tensor ", in_quotes(name), ": its data ends at byte ", entry.end,
                       ", but the file has ", data_bytes,
                       " bytes of data: the file is truncated: download it again");
        }
        by_place.emplace_back(&name, &entry);
    }
    std::sort(by_place.begin(), by_place.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
    });
    int64_t end = 0;
    const std::string* previous = nullptr;
    for (const auto& [name, entry] : by_place) {
        if (entry->begin < end) {
            fail_input(path, ": tensors ", in_quotes(*previous), " and ", in_quotes(*name),
                       " overlap: one ends at byte ", end, ", the other begins at ", entry->begin,
                       ": the file was written wrongly");
        }
        if (entry->begin > end) {
            fail_input(path, ": tensor ", in_quotes(*name), ": begins at byte ", entry->begin,
                       ", but the data before it ends at ", end,
                       ": the file has a gap, it was written wrongly");
        }
        end = entry->end;
        previous = name;
    }
    check_input(end == data_bytes, path, ": ", data_bytes - end,
                " bytes follow the data of the last tensor (", data_bytes, " in the file, ", end,
                " in the header): the file was written wrongly or is not whole");
    return header;
}

std::string_view safetensors_dtype(DType dtype) {
    return std::find_if(std::begin(kDTypes), std::end(kDTypes),
                        [&](const DTypeName& d) { return d.dtype == dtype; })
        ->name;
}

}  // namespace sana
