#include "models/json_config.h"

#include <nlohmann/json.hpp>

namespace sana {

using nlohmann::json;

struct JsonConfig::Value {
    json object;
};

namespace {

std::string shown(const json& value) {
    std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

template <class T, class Convert>
std::vector<T> list(const JsonConfig& config, const json& object, const std::string& key,
                    const std::vector<T>& fallback, Convert convert) {
    if (!config.has(key)) {
        if (fallback.empty()) throw InputError(config.error(key, "is missing"));
        return fallback;
    }
    const json& value = object.at(key);
    if (!value.is_array()) throw InputError(config.error(key, "must be a list, not " + shown(value)));
    std::vector<T> out;
    for (const json& item : value) out.push_back(convert(item));
    return out;
}

}  // namespace

JsonConfig::JsonConfig(const std::string& text, std::string source) : source_(std::move(source)) {
    json parsed = json::parse(text, nullptr, false);
    check_input(!parsed.is_discarded(), source_, ": this is not valid JSON");
    check_input(parsed.is_object(), source_, ": a JSON object is expected");
    value_ = std::make_unique<Value>(Value{std::move(parsed)});
}

JsonConfig::JsonConfig(std::unique_ptr<Value> value, std::string source)
    : value_(std::move(value)), source_(std::move(source)) {}
JsonConfig::~JsonConfig() = default;
JsonConfig::JsonConfig(JsonConfig&&) noexcept = default;

std::string JsonConfig::error(const std::string& key, const std::string& what) const {
    return join(source_, ": ", key, ' ', what);
}

bool JsonConfig::has(const std::string& key) const {
    auto it = value_->object.find(key);
    return it != value_->object.end() && !it->is_null();
}

bool JsonConfig::is_null(const std::string& key) const {
    auto it = value_->object.find(key);
    return it != value_->object.end() && it->is_null();
}

int64_t JsonConfig::integer(const std::string& key, int64_t fallback, int64_t low, int64_t high) const {
    if (!has(key)) return fallback;
    const json& value = value_->object.at(key);
    if (!value.is_number_integer())
        throw InputError(error(key, "must be a whole number, not " + shown(value)));
    bool fits = !value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    int64_t number = fits ? value.get<int64_t>() : INT64_MAX;
    if (!fits || number < low || number > high) {
        throw InputError(error(key, join("is ", shown(value), "; it must lie in ", low, " .. ", high)));
    }
    return number;
}

double JsonConfig::number(const std::string& key, double fallback, double low, double high) const {
    if (!has(key)) return fallback;
    const json& value = value_->object.at(key);
    if (!value.is_number()) throw InputError(error(key, "must be a number, not " + shown(value)));
    double number = value.get<double>();
    if (!(number >= low && number <= high)) {
        throw InputError(error(key, join("is ", number, "; it must lie in ", low, " .. ", high)));
    }
    return number;
}

bool JsonConfig::boolean(const std::string& key, bool fallback) const {
    if (!has(key)) return fallback;
    const json& value = value_->object.at(key);
    if (!value.is_boolean()) throw InputError(error(key, "must be true or false, not " + shown(value)));
    return value.get<bool>();
}

std::string JsonConfig::text(const std::string& key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    const json& value = value_->object.at(key);
    if (!value.is_string()) throw InputError(error(key, "must be a string, not " + shown(value)));
    return value.get<std::string>();
}

std::vector<int64_t> JsonConfig::integers(const std::string& key, const std::vector<int64_t>& fallback,
                                          int64_t low, int64_t high, int exact) const {
    auto values = list<int64_t>(*this, value_->object, key, fallback, [&](const json& item) {
        if (!item.is_number_integer() || item < low || item > high) {
            throw InputError(error(
                key, join("holds ", shown(item), "; whole numbers in ", low, " .. ", high, " are expected")));
        }
        return item.get<int64_t>();
    });
    if (exact >= 0 && static_cast<int>(values.size()) != exact) {
        throw InputError(error(key, join("has ", values.size(), " entries instead of ", exact)));
    }
    return values;
}

std::vector<double> JsonConfig::numbers(const std::string& key, const std::vector<double>& fallback) const {
    return list<double>(*this, value_->object, key, fallback, [&](const json& item) {
        if (!item.is_number())
            throw InputError(error(key, "holds " + shown(item) + "; numbers are expected"));
        return item.get<double>();
    });
}

std::vector<bool> JsonConfig::booleans(const std::string& key, const std::vector<bool>& fallback) const {
    return list<bool>(*this, value_->object, key, fallback, [&](const json& item) {
        if (!item.is_boolean())
            throw InputError(error(key, "holds " + shown(item) + "; true or false is expected"));
        return item.get<bool>();
    });
}

std::vector<std::string> JsonConfig::texts(const std::string& key,
                                           const std::vector<std::string>& fallback) const {
    return list<std::string>(*this, value_->object, key, fallback, [&](const json& item) {
        if (!item.is_string())
            throw InputError(error(key, "holds " + shown(item) + "; strings are expected"));
        return item.get<std::string>();
    });
}

void JsonConfig::require(const std::string& key, const char* only, const std::string& why) const {
    std::string value = text(key, only);
    if (value != only)
        throw InputError(error(key, join("is ", value, "; only ", only, " is supported: ", why)));
}

void JsonConfig::require(const std::string& key, bool only, const std::string& why) const {
    bool value = boolean(key, only);
    if (value != only)
        throw InputError(error(key, join("is ", value, "; only ", only, " is supported: ", why)));
}

JsonConfig JsonConfig::object(const std::string& key) const {
    auto value = std::make_unique<Value>(Value{json::object()});
    if (has(key)) {
        value->object = value_->object.at(key);
        if (!value->object.is_object())
            throw InputError(error(key, "must be an object, not " + shown(value->object)));
    }
    return JsonConfig(std::move(value), source_ + ": " + key);
}

}  // namespace sana
