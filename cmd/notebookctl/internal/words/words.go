// Package words is what notebookctl says to people, in English and 简体中文. The
// English text is the key: the code stays readable, and a text that has no
// translation yet is still understood. A test sees to it that there is none.
//
// It has no part in what machines read: JSON, YAML, names and codes are the same in
// both languages.
package words

import (
	"fmt"
	"strings"
	"time"

	"github.com/notebookd/notebookd/web/sentences"
)

// Language is one that notebookctl speaks.
type Language string

// The languages.
const (
	English Language = "en"
	Chinese Language = "zh"
)

// Detect returns the language of the locale.
func Detect(env func(string) string) Language {
	if sentences.Wanted(env) {
		return Chinese
	}
	return English
}

// Parse returns the language that a person names.
func Parse(text string) (Language, bool) {
	switch l := strings.ToLower(text); {
	case l == "en" || strings.HasPrefix(l, "en-") || strings.HasPrefix(l, "en_"):
		return English, true
	case l == "zh" || strings.HasPrefix(l, "zh-") || strings.HasPrefix(l, "zh_"):
		return Chinese, true
	default:
		return "", false
	}
}

// T says something: a text, or a format with its values.
func (l Language) T(english string, args ...any) string {
	text := english
	if l == Chinese {
		if translated, ok := chinese[english]; ok {
			text = translated
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// Pick returns the one of two texts that is in the language.
func (l Language) Pick(english, zh string) string {
	if l == Chinese {
		return zh
	}
	return english
}

// Join joins names to a list.
func (l Language) Join(names []string) string { return strings.Join(names, l.Pick(", ", "、")) }

// Sentence joins two sentences.
func (l Language) Sentence(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + l.Pick(" ", "") + b
}

// Age is a time span in one word, for tables: 45s, 12m, 5h, 3d. It is the same in
// all languages.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Age(-d)
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// Span is a time span in words.
func (l Language) Span(d time.Duration) string {
	count := func(n int, one, many, zh string) string {
		if l == Chinese {
			return fmt.Sprintf("%d %s", n, zh)
		}
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	d = d.Abs()
	switch {
	case d < 2*time.Minute:
		return count(int(d.Seconds()), "second", "seconds", "秒")
	case d < 2*time.Hour:
		return count(int(d.Minutes()), "minute", "minutes", "分钟")
	case d < 48*time.Hour:
		return count(int(d.Hours()), "hour", "hours", "小时")
	default:
		return count(int(d.Hours()/24), "day", "days", "天")
	}
}

// When is a moment in words, seen from now: in the local time, and how far it is.
func (l Language) When(at, now time.Time) string {
	text := at.Local().Format("2006-01-02 15:04:05 -0700")
	if at.After(now) {
		return text + l.Pick(" (in "+l.Span(at.Sub(now))+")", "（"+l.Span(at.Sub(now))+"后）")
	}
	return text + l.Pick(" ("+l.Span(now.Sub(at))+" ago)", "（"+l.Span(now.Sub(at))+"前）")
}
