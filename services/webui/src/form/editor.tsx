import { json } from "@codemirror/lang-json";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { tags } from "@lezer/highlight";
import { basicSetup, EditorView } from "codemirror";
import { useEffect, useRef } from "react";
import { nonce } from "~/nonce";

const look = EditorView.theme({
  "&": { backgroundColor: "var(--mp-surface)", color: "var(--mantine-color-text)" },
  ".cm-content": { fontFamily: "var(--mantine-font-family-monospace)", caretColor: "var(--mantine-color-text)" },
  ".cm-gutters": { backgroundColor: "var(--mp-canvas)", color: "var(--mp-muted)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "light-dark(#f1f4fb, #202736)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "light-dark(#d7e0fb, #33446f) !important" },
  ".cm-cursor": { borderLeftColor: "var(--mantine-color-text)" },
  ".cm-panels": { backgroundColor: "var(--mp-canvas)", color: "var(--mantine-color-text)" },
  ".cm-tooltip": { backgroundColor: "var(--mp-surface)", border: "1px solid var(--mp-border)" },
  ".cm-foldPlaceholder": { backgroundColor: "transparent", color: "var(--mp-muted)", border: "none" },
});

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--mp-info)" },
  { tag: [tags.string, tags.content], color: "var(--mp-ok)" },
  { tag: [tags.number, tags.bool, tags.null, tags.keyword], color: "var(--mp-warn)" },
  { tag: [tags.comment, tags.meta], color: "var(--mp-muted)" },
]);

/** A text editor of YAML or JSON; it is loaded when it is first opened. */
export default function Editor({ value, onChange, language, readOnly, label }: { value: string; onChange: (v: string) => void; language: "yaml" | "json"; readOnly: boolean; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>(null);
  const tell = useRef(onChange);
  tell.current = onChange;
  useEffect(() => {
    if (!box.current) return;
    const v = new EditorView({
      parent: box.current,
      state: EditorState.create({
        doc: value,
        extensions: [
          basicSetup,
          language === "yaml" ? yaml() : json(),
          look,
          syntaxHighlighting(colours),
          EditorView.cspNonce.of(nonce),
          EditorView.lineWrapping,
          // With a place in the order of Tab: what scrolls and cannot be focused is out of a keyboard's reach.
          EditorView.contentAttributes.of({ "aria-label": label, tabindex: "0" }),
          EditorState.readOnly.of(readOnly),
          EditorView.updateListener.of((u) => {
            if (u.docChanged) tell.current(u.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = v;
    return () => v.destroy();
    // The text is the editor's own after it is made; another one comes by the effect below.
  }, [language, readOnly, label]);
  useEffect(() => {
    const v = view.current;
    if (v && !v.hasFocus && v.state.doc.toString() !== value) v.dispatch({ changes: { from: 0, to: v.state.doc.length, insert: value } });
  }, [value]);
  return <div ref={box} className="editor" />;
}
