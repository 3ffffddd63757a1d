# The machines of this site. Their addresses here are those reserved for documentation (RFC 5737): nothing answers on them.
defaults = {
  user = "admin"
  zone = "rack-a"
}

machines = {
  control-1 = { classes = ["control"], private_ip = "192.0.2.11", management = { protocol = "redfish", address = "https://198.51.100.11" } }
  control-2 = { classes = ["control"], private_ip = "192.0.2.12", zone = "rack-b", management = { protocol = "redfish", address = "https://198.51.100.12" } }
  control-3 = { classes = ["control"], private_ip = "192.0.2.13", zone = "rack-c", management = { protocol = "ipmi", address = "198.51.100.13" } }
  worker-1 = {
    classes    = ["worker", "storage"]
    private_ip = "192.0.2.21"
    labels     = { disk = "ssd" }
    volumes    = [{ name = "data", size_gib = 960, device = "/dev/disk/by-id/nvme-eui.0025385b71b00001" }]
    serial     = "CZ2012A01L"
  }
  worker-2 = { classes = ["worker"], private_ip = "192.0.2.22", zone = "rack-b" }
}
