"""The only file of this extension that the WebUI executes."""

from sd_t2v.t2v_helpers.hosts.webui.register import register

register()
