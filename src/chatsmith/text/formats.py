"""Which kind of file a name says it is. Only the name counts: nothing is guessed from what is inside.

(A plain text may still be a chat: one that a messenger wrote shows it at its beginning, see `messengers`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

UNKNOWN = "unknown kind of file"  # why a file is skipped whose name says nothing


class Kind(Enum):
    """How a file is read."""

    TEXT = "text"
    CODE = "source code"
    HTML = "HTML"
    JSON_LINES = "JSON lines"
    JSON = "JSON"
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"
    PDF = "PDF"
    DOCX = "Word"
    RTF = "rich text"
    EPUB = "electronic book"
    NOTEBOOK = "Jupyter notebook"
    SUBTITLES = "subtitles"
    TAR = "tar archive"
    ZIP = "zip archive"


ARCHIVES = (Kind.TAR, Kind.ZIP)


@dataclass(frozen=True, slots=True)
class Format:
    """What a file name tells: how to read the file, and the suffix of its compression, if any."""

    kind: Kind
    compression: str | None = None


COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
_SHORT = {".tgz": ".gz", ".txz": ".xz", ".tbz2": ".bz2", ".tbz": ".bz2", ".tzst": ".zst"}  # for .tar.gz and so on

_SUFFIXES = {
    Kind.TEXT: "txt text md markdown mdx rst adoc asciidoc org tex ltx bib textile wiki log",
    Kind.CODE: """
        py pyi pyx pxd ipy c h cc cpp cxx c++ hh hpp hxx h++ inl ino m mm cu cuh cl metal glsl vert frag hlsl wgsl
        cs fs fsi fsx vb java kt kts scala sc sbt groovy gradle clj cljs cljc edn js mjs cjs jsx ts mts cts tsx vue
        svelte astro coffee dart go rs swift zig nim d v sv svh vhd vhdl rb erb rake gemspec php phtml pl pm t raku
        lua tcl r rmd jl f f77 f90 f95 f03 f08 for ada adb ads pas pp dpr cob cbl cobol asm s nasm ll mlir wat hs lhs
        elm purs ml mli re rei sml lean agda idr coq thy lisp lsp cl el scm ss rkt erl hrl ex exs pro prolog apl k q
        sh bash zsh fish ksh awk sed bat cmd ps1 psm1 psd1 vim sql psql prql graphql gql proto thrift capnp fbs
        css scss sass less styl xml xsd xsl xslt dtd yaml yml toml ini cfg conf properties
        cmake mk make mak ninja bazel bzl star dockerfile tf tfvars hcl nix dhall jsonnet libsonnet cue rego
        ejs hbs mustache jinja jinja2 j2 liquid haml pug slim twig sol vy move cairo abap apex ahk applescript au3
        gd gdshader hx moon odin cr ring qml pde processing stan bugs jags sas do ado wl feature
        diff patch
    """,
    Kind.HTML: "html htm xhtml",
    Kind.JSON_LINES: "jsonl ndjson jsonlines",
    Kind.JSON: "json",
    Kind.CSV: "csv",
    Kind.TSV: "tsv tab",
    Kind.PARQUET: "parquet pq",
    Kind.PDF: "pdf",
    Kind.DOCX: "docx",
    Kind.RTF: "rtf",
    Kind.EPUB: "epub",
    Kind.NOTEBOOK: "ipynb",
    Kind.SUBTITLES: "srt vtt",
    Kind.TAR: "tar",
    Kind.ZIP: "zip",
}
_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

_NAMES = {  # files that go without a suffix
    Kind.TEXT: """
        readme license licence copying copyright notice authors contributors maintainers changelog changes history news
        install todo thanks credits faq
    """,
    Kind.CODE: """
        makefile gnumakefile dockerfile containerfile rakefile gemfile guardfile podfile vagrantfile procfile brewfile
        justfile jenkinsfile build workspace sconstruct sconscript kconfig kbuild codeowners
    """,
}
_KIND_OF_NAME = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def format_of(name: str) -> Format | None:
    """The format that a file name stands for, or None. `notes.txt.gz` is compressed text; case does not matter.

    >>> format_of("notes.TXT.gz")
    Format(kind=<Kind.TEXT: 'text'>, compression='.gz')
    """
    name = name.lower()
    for short, suffix in _SHORT.items():
        if name.endswith(short):
            name = f"{name.removesuffix(short)}.tar{suffix}"
    compression = next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), None)
    if compression:
        name = name.removesuffix(compression)
    stem, dot, ending = name.rpartition(".")
    kind = _KIND_OF_SUFFIX.get(ending) if dot and stem else _KIND_OF_NAME.get(name)
    return None if kind is None else Format(kind, compression)


def readable() -> str:
    """The kinds of files that are read, as one line for a hint."""
    return (
        ".txt .md .rst, source code, .html, .jsonl .json .csv .tsv, .parquet .pdf .docx .rtf .epub .ipynb .srt .vtt, "
        "each also compressed as .gz .xz .bz2 .zst and in folders, .zip and .tar"
    )
