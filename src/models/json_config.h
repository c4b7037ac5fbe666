// Reading a model's config.json: typed fields with defaults and ranges; every error names file, key, value and range.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/check.h"

namespace sana {

class JsonConfig {
public:
    // text: strict JSON, an object; source: the file's path, for messages.
    JsonConfig(const std::string& text, std::string source);
    ~JsonConfig();
    JsonConfig(JsonConfig&&) noexcept;

    bool has(const std::string& key) const;      // present and not null
    bool is_null(const std::string& key) const;  // present and null
    int64_t integer(const std::string& key, int64_t fallback, int64_t low, int64_t high) const;
    double number(const std::string& key, double fallback, double low, double high) const;
    bool boolean(const std::string& key, bool fallback) const;
    std::string text(const std::string& key, const std::string& fallback) const;
    // An empty fallback makes the key required. exact >= 0: the list must have this length.
    std::vector<int64_t> integers(const std::string& key, const std::vector<int64_t>& fallback, int64_t low,
                                  int64_t high, int exact = -1) const;
    std::vector<double> numbers(const std::string& key, const std::vector<double>& fallback) const;
    std::vector<bool> booleans(const std::string& key, const std::vector<bool>& fallback) const;
    std::vector<std::string> texts(const std::string& key, const std::vector<std::string>& fallback) const;

    // Throws when the value is present and differs from the only one supported.
    void require(const std::string& key, const char* only, const std::string& why) const;
    void require(const std::string& key, bool only, const std::string& why) const;

    JsonConfig object(const std::string& key) const;  // a nested object; an empty one when absent
    const std::string& source() const { return source_; }
    std::string error(const std::string& key, const std::string& what) const;  // "file: key: what"

private:
    struct Value;
    explicit JsonConfig(std::unique_ptr<Value> value, std::string source);
    std::unique_ptr<Value> value_;
    std::string source_;
};

}  // namespace sana
