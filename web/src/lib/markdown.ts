// What a model writes is shown as Markdown, and only through DOMPurify.
import DOMPurify from "dompurify";
import { Marked } from "marked";

const escaped = (text: string): string => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

// HTML in an answer is text, and shown as such: a model has no say in how the page looks, and the mere parsing of a
// style attribute breaks the policy on content. What DOMPurify sees is only what Markdown made.
const parser = new Marked({
  breaks: true,
  gfm: true,
  renderer: { html: ({ text, block }) => (block ? `<p>${escaped(text)}</p>` : escaped(text)) },
});

// A form or a style of its own would let an answer dress up as the page; a remote image would tell its host what
// was said; names and ids would shadow properties of the document.
const RULES = {
  RETURN_TRUSTED_TYPE: true,
  FORBID_TAGS: [
    "form",
    "input",
    "button",
    "textarea",
    "select",
    "option",
    "style",
    "svg",
    "math",
    "iframe",
    "video",
    "audio",
    "picture",
    "source",
    "dialog",
    "template",
  ],
  FORBID_ATTR: [
    "style",
    "id",
    "name",
    "class",
    "srcset",
    "data-link",
    "background",
    "poster",
    "action",
    "for",
  ],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
} as const;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "IMG" && !(node.getAttribute("src") ?? "").startsWith("data:image/")) node.remove();
  if (node.tagName === "A") {
    node.setAttribute("rel", "noopener noreferrer nofollow");
    node.setAttribute("target", "_blank");
  }
});

/** `text` as HTML that a page may hold. Under Trusted Types the result is a TrustedHTML, which Preact passes on. */
export function markdown(text: string): string {
  const html = parser.parse(text, { async: false });
  return DOMPurify.sanitize(html, {
    ...RULES,
    FORBID_TAGS: [...RULES.FORBID_TAGS],
    FORBID_ATTR: [...RULES.FORBID_ATTR],
  }) as unknown as string;
}
