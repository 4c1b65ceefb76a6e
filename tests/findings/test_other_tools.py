"""What is found in the outputs of tools from other languages, written as their documentation shows them."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from paropt_exporter.findings import Finding, Level, choose_excerpt, find_findings

_TYPE_ERROR = Finding(
    message="Type 'string' is not assignable to type 'number'.", path="src/a.ts", line=3, column=5, rule="TS2322"
)


@pytest.mark.parametrize(
    "line",
    [
        "src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.",
        "src/a.ts:3:5 - error TS2322: Type 'string' is not assignable to type 'number'.",
    ],
)
def test_tsc_is_read_with_and_without_a_terminal(line: str) -> None:
    assert find_findings(f"{line}\n\n3     n = text;\n      ~\n\nFound 1 error in src/a.ts:3\n") == (_TYPE_ERROR,)


def test_eslint_findings_get_the_file_they_stand_under() -> None:
    output = (
        "\n/app/src/a.js\n"
        "  1:7   error    'x' is assigned a value but never used  no-unused-vars\n"
        "  2:10  warning  Unexpected any. Specify a type          @typescript-eslint/no-explicit-any\n"
        "\n/app/src/b.js\n"
        "  5:1  error  Parsing error: Unexpected token\n"
        "\n/app/src/c.js\n"
        "  0:0  warning  File ignored by default\n"
        "\n✖ 4 problems (2 errors, 2 warnings)\n  1 error and 0 warnings potentially fixable with the `--fix` option.\n"
    )
    assert find_findings(output) == (
        Finding(
            message="'x' is assigned a value but never used",
            path="/app/src/a.js",
            line=1,
            column=7,
            rule="no-unused-vars",
        ),
        Finding(
            message="Unexpected any. Specify a type",
            path="/app/src/a.js",
            line=2,
            column=10,
            rule="@typescript-eslint/no-explicit-any",
            level=Level.WARNING,
        ),
        Finding(message="Parsing error: Unexpected token", path="/app/src/b.js", line=5, column=1),
        Finding(message="File ignored by default", path="/app/src/c.js", level=Level.WARNING),
    )


def test_go_names_failed_subtests_with_their_first_log_line() -> None:
    output = (
        "--- FAIL: TestSum (0.00s)\n"
        "    --- FAIL: TestSum/negative (0.00s)\n"
        "        sum_test.go:12: got 3, want -3\n"
        "        sum_test.go:13: and more\n"
        "--- FAIL: TestOther (0.01s)\n"
        "    other_test.go:7: broken\n"
        "FAIL\nFAIL\texample.com/sums\t0.012s\nok  \texample.com/fine\t0.004s\n"
    )
    assert find_findings(output) == (
        Finding(message="got 3, want -3", path="sum_test.go", line=12, test="TestSum/negative"),
        Finding(message="broken", path="other_test.go", line=7, test="TestOther"),
    )


def test_go_in_its_verbose_form_logs_before_the_verdict() -> None:
    output = (
        "=== RUN   TestSum\n    sum_test.go:12: got 3, want 4\n--- FAIL: TestSum (0.00s)\n"
        "=== RUN   TestFine\n    sum_test.go:20: only a note\n--- PASS: TestFine (0.00s)\nFAIL\n"
    )
    assert choose_excerpt(output) == ["TestSum: got 3, want 4"]


def test_many_failed_go_tests_cost_no_time() -> None:
    output = "".join(f"--- FAIL: Test/{number} (0.00s)\n" for number in range(20_000))
    began = time.process_time()
    assert len(find_findings(output)) == 20_000
    assert time.process_time() - began < 5


def test_cargo_names_failed_tests_with_their_panic_or_first_line() -> None:
    output = (
        "running 5 tests\ntest sums::fine ... ok\ntest sums::adds ... FAILED\n"
        "test sums::quiet - should panic ... FAILED\ntest sums::returns ... FAILED\n"
        "test sums::exits ... FAILED\n\nfailures:\n\n"
        "---- sums::adds stdout ----\n\nthread 'sums::adds' (3123) panicked at src/lib.rs:9:5:\n"
        "assertion `left == right` failed\n  left: 3\n right: 4\nstack backtrace:\n   0: std::panicking\n\n"
        "---- sums::quiet stdout ----\nnote: test did not panic as expected at src/lib.rs:21:8\n"
        '---- sums::returns stdout ----\nError: "no such tea"\n\n\n'
        "failures:\n    sums::adds\n    sums::quiet\n    sums::returns\n\n"
        "test result: FAILED. 1 passed; 4 failed\n\nerror: test failed, to rerun pass `--lib`\n"
    )
    assert find_findings(output) == (
        Finding(
            message="assertion `left == right` failed, left: 3, right: 4",
            path="src/lib.rs",
            line=9,
            column=5,
            test="sums::adds",
        ),
        Finding(message="test did not panic as expected at src/lib.rs:21:8", test="sums::quiet"),
        Finding(message='Error: "no such tea"', test="sums::returns"),
        Finding(message="failed", test="sums::exits"),
    )


def test_go_packages_that_do_not_compile_name_the_line() -> None:
    output = "# example.com/sums\n./sum.go:3:5: undefined: y\nFAIL\texample.com/sums [build failed]\nFAIL\n"
    assert choose_excerpt(output) == ["./sum.go:3:5: undefined: y"]


def test_vitest_names_failed_tests_with_their_errors_and_places() -> None:
    """The summary showed vitest's last lines, which have the time and the duration of its run."""
    output = """
 RUN  v1.6.1 /app

 @ src/a.test.ts  (4 tests | 3 failed) 15ms
   @ src/a.test.ts > outer > adds
     → expected -1 to be 3 // Object.is equality

⎯⎯⎯⎯⎯⎯ Failed Suites 1 ⎯⎯⎯⎯⎯⎯⎯

 FAIL  src/broken.test.ts [ src/broken.test.ts ]
Error: Failed to load url ./nowhere (resolved id: ./nowhere) in /app/src/broken.test.ts. Does the file exist?
 @ loadAndTransform node_modules/vite/dist/node/chunks/dep-BK3b2jBa.js:51969:17

⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯[1/3]⎯

⎯⎯⎯⎯⎯⎯⎯ Failed Tests 3 ⎯⎯⎯⎯⎯⎯⎯

 FAIL  src/a.test.ts > outer > adds
AssertionError: expected -1 to be 3 // Object.is equality

- Expected
+ Received

- 3
+ -1

 @ helper src/a.test.ts:10:39
      9| })
     10| function helper() { expect(add(1, 1)).toBe(3); }
       |                                        ^
     11|
 @ src/a.test.ts:3:26

⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯[2/3]⎯

 FAIL  src/a.test.ts > outer > one
 FAIL  src/a.test.ts > outer > two
TypeError: no list
 @ src/list.ts:2:5

⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯[3/3]⎯

 Test Files  2 failed (2)
   Start at  16:07:36
""".replace("@", "\u276f")
    broken = (
        "Error: Failed to load url ./nowhere (resolved id: ./nowhere) in /app/src/broken.test.ts. Does the file exist?"
    )
    wrong = "AssertionError: expected -1 to be 3 // Object.is equality"
    one = Finding(
        message="TypeError: no list", test="src/a.test.ts > outer > one", path="src/list.ts", line=2, column=5
    )
    assert find_findings(output) == (
        Finding(message=broken, test="src/broken.test.ts"),
        Finding(message=wrong, test="src/a.test.ts > outer > adds", path="src/a.test.ts", line=10, column=39),
        one,
        replace(one, test="src/a.test.ts > outer > two"),
    )
    assert find_findings(" FAIL  src/a.test.ts > cut off\n") == (
        Finding(message="failed", test="src/a.test.ts > cut off"),
    )


def test_mocha_names_failed_tests_with_their_suites_and_places() -> None:
    """The summary showed mocha's last lines, which are frames of Node.js."""
    output = """  outer: x
    GET /foo:
      1) adds

  12 passing (29s)
  4 failing

  1) outer: x
       GET /foo:
         adds:

      AssertionError [ERR_ASSERTION]: Expected values to be strictly equal:

1 !== 2

      + expected - actual

      -1
      +2
      
      at check (node_modules/chai/index.js:1:1)
      at Context.<anonymous> (t.js:4:31)
      at process.processImmediate (node:internal/timers:483:21)

  2) top:

      AssertionError [ERR_ASSERTION]: Expected values to be strictly deep-equal:
+ actual - expected

  {
      at file:///app/t.mjs:11:24

  3) throws:
     TypeError: boom
second line
      at process.processImmediate (node:internal/timers:483:21)

  4) hooks
       "before each" hook for "never":
"""  # noqa: W293 -- as mocha prints it
    assert find_findings(output) == (
        Finding(
            message="AssertionError [ERR_ASSERTION]: Expected values to be strictly equal: 1 !== 2",
            test="outer: x > GET /foo: > adds",
            path="t.js",
            line=4,
            column=31,
        ),
        Finding(
            message="AssertionError [ERR_ASSERTION]: Expected values to be strictly deep-equal:",
            test="top",
            path="/app/t.mjs",
            line=11,
            column=24,
        ),
        Finding(message="TypeError: boom", test="throws"),
        Finding(message="failed", test='hooks > "before each" hook for "never"'),
    )


def test_spec_reporter_of_node_names_failed_tests_with_their_places() -> None:
    """Node.js 24 writes this instead of TAP, and the summary showed its last lines."""
    output = """@ todo (0.1ms) # TODO
@ adds (1.6ms)

@ failing tests:

test at a.test.js:2:27
@ adds (1.632331ms)
  AssertionError [ERR_ASSERTION]: Expected values to be strictly equal:

  1 !== 2

      at TestContext.<anonymous> (/app/a.test.js:2:53)
      at Test.run (node:internal/test_runner/test:796:25) {
    code: 'ERR_ASSERTION',
  }

test at a.test.js:3:1
@ later (0.2ms)
  Error: later
      at Test.run (node:internal/test_runner/test:796:25)

test at a.test.js:6:1
@ todo (0.1ms) # TODO
  Error: known
""".replace("@", "\u2716")
    assert find_findings(output) == (
        Finding(
            message="AssertionError [ERR_ASSERTION]: Expected values to be strictly equal: 1 !== 2",
            test="adds",
            path="/app/a.test.js",
            line=2,
            column=53,
        ),
        Finding(message="Error: later", test="later", path="a.test.js", line=3, column=1),
    )


def test_jest_names_failed_tests_with_their_values_and_places() -> None:
    """The summary showed jest's last lines, which have a duration and 'Ran all test suites'."""
    failure = """  @ outer & adds

    expect(received).toBe(expected) // Object.is equality

    Expected: 3
    Received: 2

    > 3 |   test('adds', () => { expect(add(1, 1)).toBe(3); });
        |                                          ^

      at Object.toBe (node_modules/expect/build/index.js:9:9)
      at Object.<anonymous> (src/a.test.js:3:38)

"""
    output = f"""PASS src/ok.test.js
  @ Console

    console.log
      at log (src/ok.test.js:1:1)

FAIL src/a.test.js (5.1 s)
{failure}  @ top

    TypeError: multi
    line

      at helper (src/h.js:1:13)
      at src/a.test.js:8:38

FAIL src/b.test.js
  @ Test suite failed to run

    Cannot find module './nowhere' from 'src/b.test.js'

Summary of all failing tests
FAIL src/a.test.js (5.1 s)
{failure}Test Suites: 2 failed, 1 passed, 3 total
Time:        1.746 s
Ran all test suites.
""".replace("  @", "  \u25cf")
    wrong = "expect(received).toBe(expected) // Object.is equality: Expected: 3, Received: 2"
    assert find_findings(output) == (
        Finding(message=wrong, test="src/a.test.js > outer & adds", path="src/a.test.js", line=3, column=38),
        Finding(message="TypeError: multi", test="src/a.test.js > top", path="src/h.js", line=1, column=13),
        Finding(message="Cannot find module './nowhere' from 'src/b.test.js'", test="src/b.test.js"),
    )


def test_failed_subtests_of_tap_have_their_messages_and_places() -> None:
    output = """TAP version 13
# Subtest: adds
not ok 1 - adds
  ---
  duration_ms: 1503.9
  location: '/app/a.test.js:2:41'
  failureType: 'testCodeFailure'
  error: '1 == 2'
  stack: |-
    TestContext.<anonymous> (/app/a.test.js:2:115)
  ...
# Subtest: orders
    # Subtest: ships
    not ok 1 - ships
      ---
      location: '/app/b.test.js:3:26'
      error: |-
        Expected values to be strictly equal:

        1 !== 2
      ...
    # Subtest: later
    not ok 2 - later # TODO
      ---
      error: 'not yet'
      ...
    1..2
not ok 2 - orders
  ---
  location: '/app/b.test.js:3:1'
  failureType: 'subtestsFailed'
  error: '1 subtest failed'
  ...
1..2
# fail 2
"""
    assert find_findings(output) == (
        Finding(test="adds", message="1 == 2", path="/app/a.test.js", line=2, column=41),
        Finding(
            test="ships",
            message="Expected values to be strictly equal: 1 !== 2",
            path="/app/b.test.js",
            line=3,
            column=26,
        ),
    )


def test_tap_without_descriptions_names_the_failed_tests() -> None:
    assert choose_excerpt("1..2\nok 1 adds\nnot ok 2 divides\n# some output\n") == ["divides: failed"]


def test_bats_has_place_and_command_in_comments() -> None:
    output = """1..3
not ok 1 adds
# (in test file t.bats, line 3)
#   `[ "$result" -eq 3 ]' failed
# some output
not ok 2 in a helper
# (from function `helper' in file t.bats, line 11,
#  in test file t.bats, line 13)
#   `helper' failed with status 2
ok 3 skipped # skip no
"""
    assert find_findings(output) == (
        Finding(message='`[ "$result" -eq 3 ]\' failed', path="t.bats", line=3, test="adds"),
        Finding(message="`helper' failed with status 2", path="t.bats", line=13, test="in a helper"),
    )


def test_perl_has_place_and_values_in_comments_which_prove_shows_alone() -> None:
    comments = """\
#   Failed test 'adds'
#   at t/a.t line 3.
#          got: '1'
#     expected: '2'
#   Failed test at t/a.t line 4.
    #   Failed test 'inner'
    #   at t/a.t line 6.
# Looks like you failed 3 tests of 3.
"""
    found = (
        Finding(message="got: '1', expected: '2'", path="t/a.t", line=3, test="adds"),
        Finding(message="failed", path="t/a.t", line=4, test="a test"),
        Finding(message="failed", path="t/a.t", line=6, test="inner"),
    )
    assert find_findings(f"{comments}t/a.t ..\nDubious, test returned 3\nFailed 3/3 subtests\nResult: FAIL\n") == found
    tap = ["1..3", "not ok 1 - adds", *comments.splitlines()[:4], "not ok 2", comments.splitlines()[4]]
    assert find_findings("\n".join(tap)) == found[:2]


def test_not_ok_outside_of_tap_is_no_finding() -> None:
    assert find_findings("not ok 1 - oh\n") == ()


def test_a_compilers_error_code_becomes_the_rule() -> None:
    output = "error[E0308]: mismatched types\n --> src/main.rs:4:18\n  |\n4 |     let x: i32 = 'a';\n"
    assert choose_excerpt(output) == ["src/main.rs:4:18: mismatched types [E0308]"]


def test_undefined_references_of_a_linker_are_named() -> None:
    output = """/usr/bin/ld: main.o: in function `main':
/src/main.c:7: undefined reference to `f'
/usr/bin/ld: /src/main.c:9: undefined reference to `g'
main.c:(.text+0x5): undefined reference to `h'
collect2: error: ld returned 1 exit status
make: *** [Makefile:144: main] Error 1
"""
    assert [found.text for found in find_findings(output)] == [
        "/src/main.c:7: undefined reference to `f'",
        "/src/main.c:9: undefined reference to `g'",
        "main.c: undefined reference to `h'",
    ]


@pytest.mark.parametrize("word", ["info", "note", "help"])
def test_places_that_an_error_of_rustc_or_ty_refers_to_are_no_findings(word: str) -> None:
    output = f"""error[invalid-argument-type]: Argument to function `f` is incorrect
 --> app.py:12:14
  |
{word}: Function defined here
 --> app.py:5:5
"""
    assert choose_excerpt(output) == ["app.py:12:14: Argument to function `f` is incorrect [invalid-argument-type]"]


@pytest.mark.parametrize(
    "line",
    [
        "app.py:14:15: error[unresolved-reference] Name `x` used when not defined",
        "::error title=ty (unresolved-reference),file=/src/app.py,line=14,col=15,endLine=14,endColumn=16"
        "::app.py:14:15: unresolved-reference: Name `x` used when not defined%0A  info: rule is enabled",
    ],
)
def test_ty_is_read_in_its_concise_form_and_in_annotations(line: str) -> None:
    assert choose_excerpt(line) == ["app.py:14:15: Name `x` used when not defined [unresolved-reference]"]


def test_rule_of_pyright_is_behind_the_details_of_a_message() -> None:
    output = (
        "/src/app.py\n"
        '  /src/app.py:19:16 - error: Type "Literal[3]" is not assignable to return type "str"\n'
        '  \u00a0\u00a0"Literal[3]" is not assignable to "str" (reportReturnType)\n'
        "  /src/app.py:20:1 - error: Import cycles not allowed\n"
        "  /src/app.py:21:1 - error: Expected expression\n"
        '  /src/app.py:22:5 - error: "x" is not defined (reportUndefinedVariable)\n'
    )
    assert [found.text for found in find_findings(output)] == [
        '/src/app.py:19:16: Type "Literal[3]" is not assignable to return type "str" [reportReturnType]',
        "/src/app.py:20:1: Import cycles not allowed",
        "/src/app.py:21:1: Expected expression",
        '/src/app.py:22:5: "x" is not defined [reportUndefinedVariable]',
    ]


def test_rule_of_mypy_that_alone_is_wrapped_has_a_space_before_it() -> None:
    """With `pretty = true`, where the message just fits into the width of the terminal."""
    output = (
        'app.py:12: error: Argument 1 to "f" has incompatible type "str"; expected "int"\n [arg-type]\n'
        '        assert f("x") == 3\n                 ^~~\n'
    )
    assert choose_excerpt(output) == [
        'app.py:12: Argument 1 to "f" has incompatible type "str"; expected "int" [arg-type]'
    ]


def test_files_that_black_cannot_parse_or_ruff_would_format_are_named() -> None:
    output = "would reformat a.py\nerror: cannot parse: b.py:1:6\n    def f(:\n         ^\nParseError: bad input\n"
    assert [found.text for found in find_findings(output)] == ["a.py: would reformat", "b.py:1:6: cannot parse"]
    concise = "a.py:1:3: unformatted: File would be reformatted\n1 file would be reformatted\n"
    assert choose_excerpt(concise) == ["a.py:1:3: File would be reformatted [unformatted]"]


def test_errors_are_shown_before_warnings() -> None:
    """Compilers print warnings of the first files first, which hid the reason of the failure."""
    warnings = "".join(f"warning: unused variable: `x{n}`\n --> src/lib.rs:{n}:9\n" for n in range(1, 5))
    output = f"{warnings}error[E0425]: cannot find value `y` in this scope\n --> src/main.rs:3:18\n"
    wrong = "src/main.rs:3:18: cannot find value `y` in this scope [E0425]"
    first, second = (f"src/lib.rs:{n}:9: unused variable: `x{n}`" for n in (1, 2))
    assert choose_excerpt(output) == [wrong, first, second, "… 2 more"]
    assert choose_excerpt(output, brief=True) == [wrong]


def test_rules_of_yamllint_are_in_parentheses() -> None:
    output = """./bad.yml
  1:1       warning  missing document start "---"  (document-start)
  1:4       error    too many spaces after colon (colons)  (colons)
"""
    assert choose_excerpt(output) == [
        "./bad.yml:1:4: too many spaces after colon (colons) [colons]",
        './bad.yml:1:1: missing document start "---" [document-start]',
    ]


def test_pyflakes_is_read_but_no_note_of_mypy_or_ty() -> None:
    notes = 'app.py:2:5: note: Revealed type is "int"\napp.py:2:5: info[revealed-type] Revealed type\n'
    output = f"app.py:1:1: 'os' imported but unused\n{notes}"
    assert choose_excerpt(output) == ["app.py:1:1: 'os' imported but unused"]


def test_notes_of_a_compiler_are_no_findings() -> None:
    output = "main.c:3:5: error: 'x' undeclared (first use in this function)\nmain.c:3:5: note: each is reported once\n"
    assert choose_excerpt(output) == ["main.c:3:5: 'x' undeclared (first use in this function)"]


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("", []),
        ("\n\n  one\n", ["one"]),
        ("1\n2\n3\n4\n", ["1", "2", "3", "4"]),
        ("1\n2\n3\n4\n5\n", ["1", "… 2 lines", "4", "5"]),
        ("[about 9 bytes before this are left out]\n1\n2\n", ["1", "2"]),
        ("[about 9 bytes before this are left out]\n1\n2\n3\n4\n5\n6\n", ["4", "5", "6"]),
    ],
)
def test_the_output_of_an_unknown_tool_is_shown_by_its_head_and_tail(output: str, shown: list[str]) -> None:
    assert choose_excerpt(output) == shown


@pytest.mark.parametrize(
    "closing",
    [
        "make[1]: *** [Makefile:2: lint] Error 3\nmake[1]: Leaving directory '/a'\nmake: *** [lint] Error 2",
        "ninja: build stopped: subcommand failed.",
        "error: Recipe `lint` failed on line 2 with exit code 3",
        'task: Failed to run task "lint": exit status 3',
        "npm error code 1\nnpm error path /a",
        "\u2009ELIFECYCLE\u2009 Command failed with exit code 3.",
        "error Command failed with exit code 3.\ninfo Visit https://yarnpkg.com/ for documentation.",
    ],
)
def test_the_one_line_of_an_unknown_tool_is_its_last(closing: str) -> None:
    """It was the first: '> shop@1.0.0 lint' of npm, or 'connecting to the database'."""
    assert choose_excerpt(f"connecting\nconnection refused\n\n{closing}\n", brief=True) == ["connection refused"]


def test_the_one_line_of_a_known_tool_is_its_first_finding() -> None:
    assert choose_excerpt("a.c:3:5: error: one\na.c:4:5: error: two\n", brief=True) == ["a.c:3:5: one"]


def test_an_excerpt_of_closing_lines_only_is_the_last() -> None:
    assert choose_excerpt("make: *** No rule to make target 'lint'.  Stop.\n", brief=True) == [
        "make: *** No rule to make target 'lint'.  Stop."
    ]
    assert choose_excerpt("", brief=True) == []


def test_a_log_line_that_looks_like_a_place_is_no_finding() -> None:
    assert find_findings("12:30:01: started\nhttp://127.0.0.1:8080: ready\nERROR: 3 things\n") == ()
    assert find_findings("12:30:01: web-server: started\nchecking app.py:3:4: ok\n") == ()  # as ty and pyflakes write


def test_description_of_a_tap_failure_ends_with_its_indentation() -> None:
    """Otherwise each failure without an end would be read to the end of the output, and have the texts of others."""
    text = "1..2\nnot ok 1 - adds\n  ---\n  duration_ms: 1\nnot ok 2 - divides\n  ---\n  error: 'by zero'\n  ...\n"
    assert choose_excerpt(text) == ["divides: by zero", "adds: failed"]


def test_error_that_ends_node_has_its_own_place() -> None:
    """The summary showed the last frames, which are those of Node.js or of mocha."""
    thrown = """node:assert:90
  throw new AssertionError(obj);
  ^

AssertionError [ERR_ASSERTION]: Expected values to be strictly equal:

1 !== 2

    at check (/app/node_modules/chai/index.js:1:1)
    at Object.<anonymous> (/app/a.js:1:40)
    at node:internal/main/run_main_module:28:49 {
  code: 'ERR_ASSERTION',
}

Node.js v20.20.2
"""
    message = "AssertionError [ERR_ASSERTION]: Expected values to be strictly equal: 1 !== 2"
    assert find_findings(thrown) == (Finding(message=message, path="/app/a.js", line=1, column=40),)

    not_found = """node:internal/modules/esm/resolve:873
  throw new ERR_MODULE_NOT_FOUND(packageName, fileURLToPath(base), null);
        ^

Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'nopkg' imported from /app/a.mjs
    at packageResolve (node:internal/modules/esm/resolve:873:9)
"""
    message = "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'nopkg' imported from /app/a.mjs"
    assert find_findings(not_found) == (Finding(message=message),)


def test_syntax_error_of_node_is_at_the_faulty_line_not_where_it_is_imported() -> None:
    output = """
 Exception during run: /app/lib/express.js:83



SyntaxError: Unexpected end of input
    at wrapSafe (node:internal/modules/cjs/loader:1464:18)
    at Object.<anonymous> (/app/index.js:11:18)
"""
    error = Finding(message="SyntaxError: Unexpected end of input", path="/app/lib/express.js", line=83)
    assert find_findings(output) == (error,)


def test_place_of_node_without_an_error_and_frames_is_no_finding() -> None:
    assert find_findings("/app/a.js:83\nError: no frames\nNode.js v20\n") == ()
    assert find_findings("/app/a.js:83\n    at f (/app/a.js:1:2)\n") == ()
