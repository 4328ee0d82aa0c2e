package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const untranslated = `info:
    description: |-
        One API.

        It has ` + "`parts`" + `.
paths:
    /v1/things:
        get:
            description: Lists things. NOT_FOUND when there are none.
            example:
                description: of a thing
components:
    description: {type: string, description: Lists things. NOT_FOUND when there are none.}
`

const translations = `
- en: |-
    One API.

    It has ` + "`parts`" + `.
  zh: |-
    一套 API。

    它有 ` + "`parts`" + `。
- en: Lists things. NOT_FOUND when there are none.
  zh: 列出东西。没有时返回 NOT_FOUND。
`

// TestTranslate: what describes is translated wherever it stands, and nothing else.
func TestTranslate(t *testing.T) {
	got, err := translate([]byte(untranslated), []byte(translations))
	if err != nil {
		t.Fatal(err)
	}
	want := `info:
    description: |-
        一套 API。

        它有 ` + "`parts`" + `。
paths:
    /v1/things:
        get:
            description: 列出东西。没有时返回 NOT_FOUND。
            example:
                description: of a thing
components:
    description: {type: string, description: 列出东西。没有时返回 NOT_FOUND。}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestTranslateTells: what is wrong with translations is told, all of it, and what to
// do about it.
func TestTranslateTells(t *testing.T) {
	things := "- en: Lists things. NOT_FOUND when there are none.\n  zh: 列出东西。没有时返回 NOT_FOUND。\n"
	for _, test := range []struct {
		name, old, new string
		want           []string
	}{
		{"none", translations, "", []string{
			"a description has no translation; fill in zh, below the entry of line 0:\n\n- en: |-\n    One API.\n\n    It has `parts`.\n  zh: \"\"\n",
			"a description has no translation; fill in zh, below the entry of line 0:\n\n- en: Lists things. NOT_FOUND when there are none.\n  zh: \"\"\n",
		}},
		{"one is missing", things, "", []string{
			"a description has no translation; fill in zh, below the entry of line 2:\n\n- en: Lists things. NOT_FOUND when there are none.\n  zh: \"\"\n",
		}},
		{"a comment has changed", "- en: Lists things.", "- en: List things.", []string{
			"a description has no translation; fill in zh, below the entry of line 2:\n\n- en: Lists things. NOT_FOUND when there are none.\n  zh: \"\"\n",
			"line 10: there is no such description any more; change it or take it out:\n\n- en: List things. NOT_FOUND when there are none.\n  zh: 列出东西。没有时返回 NOT_FOUND。\n",
		}},
		{"one is empty", "zh: 列出东西。没有时返回 NOT_FOUND。", "zh:", []string{"line 10: the translation is empty\n"}},
		{"one is there twice", things, things + things, []string{"line 12: this description is in line 10 already\n"}},
		{"a name is translated", "返回 NOT_FOUND", "返回未找到", []string{"line 11: the translation has no NOT_FOUND\n"}},
		{"a word of code is translated", "有 `parts`", "有 `部分`", []string{"line 6: the translation has no `parts`\n"}},
		{"a line is wrapped", "    它有 `", "    它\n    有 `", []string{"line 6: the translation has to be one line for each paragraph\n"}},
		{"a key is unknown", "zh: 列", "cn: 列", []string{"yaml: unmarshal errors:\n  line 11: field cn not found in type main.translation"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(translations, test.old, test.new, 1)
			if changed == translations {
				t.Fatal("the test changes nothing")
			}
			_, err := translate([]byte(untranslated), []byte(changed))
			if err == nil {
				t.Fatal("it is taken")
			}
			if diff := cmp.Diff(strings.Join(test.want, "\n"), err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
