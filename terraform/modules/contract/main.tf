# Every sentence of schemas/machines.json, said of every node; tests/unit/terraform_roots holds both equal.

locals {
  attributes = {
    node       = ["id", "classes", "private_ip", "public_ip", "user", "port", "zone", "region", "labels", "volumes", "bastion", "ssh_host_keys", "load_balancers", "management"]
    volume     = ["name", "size_gib", "device"]
    bastion    = ["host", "user", "port"]
    management = ["protocol", "address"]
  }
  classes = ["control", "worker", "edge", "storage"]
  pattern = {
    name     = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
    ipv4     = "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$"
    user     = "^[a-z_][a-z0-9_.-]{0,31}$"
    zone     = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    volume   = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
    host_key = "^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+=*$"
  }

  # Absent and null are the same from here on.
  given = { for name, node in var.nodes : name => {
    id             = try(node.id, null)
    classes        = try(node.classes, null)
    private_ip     = try(node.private_ip, null)
    public_ip      = try(node.public_ip, null)
    user           = try(node.user, null)
    port           = try(node.port, null)
    zone           = try(node.zone, null)
    region         = try(node.region, null)
    labels         = try(node.labels, null)
    volumes        = try(node.volumes, null)
    bastion        = try(node.bastion, null)
    ssh_host_keys  = try(node.ssh_host_keys, null)
    load_balancers = try(node.load_balancers, null)
    management     = try(node.management, null)
  } }

  # JSON tells texts from numbers where HCL converts one to the other: a text begins with a quotation mark, a list with [, an object with {.
  json = { for name, node in local.given : name => { for key, value in node : key => jsonencode(value) } }

  problems = flatten([for name, node in local.given : [for where, text in merge(
    {
      "its name" = can(regex(local.pattern.name, name)) ? null : "is ${jsonencode(name)}. Allowed: labels of small letters, digits and hyphens, separated by dots"
      "its attributes" = length(setsubtract(try(keys(var.nodes[name]), []), local.attributes.node)) == 0 ? null : (
        "are more than there are: ${join(", ", setsubtract(try(keys(var.nodes[name]), []), local.attributes.node))}. Allowed: ${join(", ", local.attributes.node)}"
      )
      id = local.json[name].id == "null" || (startswith(local.json[name].id, "\"") && local.json[name].id != "\"\"") ? null : (
        "is ${local.json[name].id}. Allowed: a text that is not empty, or null"
      )
      classes = startswith(local.json[name].classes, "[") && try(
        length(node.classes) > 0 && length(distinct(node.classes)) == length(node.classes) && length(setsubtract(node.classes, local.classes)) == 0, false
      ) ? null : "is ${local.json[name].classes}. Allowed: a list of one or more of ${join(", ", local.classes)}, each once"
      private_ip = can(regex(local.pattern.ipv4, node.private_ip)) ? null : "is ${local.json[name].private_ip}. Allowed: an IPv4 address"
      public_ip = local.json[name].public_ip == "null" || can(regex(local.pattern.ipv4, node.public_ip)) ? null : (
        "is ${local.json[name].public_ip}. Allowed: an IPv4 address, or null"
      )
      user = startswith(local.json[name].user, "\"") && can(regex(local.pattern.user, node.user)) ? null : (
        "is ${local.json[name].user}. Allowed: a user name of 1 to 32 small letters, digits, hyphens, underscores and dots, a letter or underscore first"
      )
      port = local.json[name].port == "null" || (can(regex("^[0-9]+$", local.json[name].port)) && try(node.port >= 1 && node.port <= 65535, false)) ? null : (
        "is ${local.json[name].port}. Allowed: a whole number from 1 to 65535, or null"
      )
      zone = local.json[name].zone == "null" || (startswith(local.json[name].zone, "\"") && can(regex(local.pattern.zone, node.zone))) ? null : (
        "is ${local.json[name].zone}. Allowed: at most 63 letters, digits, dots, hyphens and underscores, the first and last a letter or a digit, or null"
      )
      region = local.json[name].region == "null" || (startswith(local.json[name].region, "\"") && can(regex(local.pattern.zone, node.region))) ? null : (
        "is ${local.json[name].region}. Allowed: at most 63 letters, digits, dots, hyphens and underscores, the first and last a letter or a digit, or null"
      )
      labels = local.json[name].labels == "null" || (startswith(local.json[name].labels, "{") && try(
        alltrue([for value in values(node.labels) : startswith(jsonencode(value), "\"") && length(value) <= 63]), false
      )) ? null : "is ${local.json[name].labels}. Allowed: an object of texts of at most 63 characters, or null"
      volumes = local.json[name].volumes == "null" || (startswith(local.json[name].volumes, "[") && try(alltrue([for volume in node.volumes : (
        length(setsubtract(keys(volume), local.attributes.volume)) == 0 &&
        startswith(jsonencode(volume.name), "\"") && can(regex(local.pattern.volume, volume.name)) &&
        can(regex("^[1-9][0-9]*$", jsonencode(volume.size_gib))) &&
        startswith(jsonencode(volume.device), "\"/")
        )]), false)) ? null : (
        "is ${local.json[name].volumes}. Allowed: a list of objects with name (small letters, digits, hyphens), size_gib (a whole number from 1) and device (an absolute path), or null"
      )
      bastion = local.json[name].bastion == "null" || try(
        length(setsubtract(keys(node.bastion), local.attributes.bastion)) == 0 &&
        startswith(jsonencode(node.bastion.host), "\"") && node.bastion.host != "" &&
        startswith(jsonencode(node.bastion.user), "\"") && can(regex(local.pattern.user, node.bastion.user)) &&
        (jsonencode(try(node.bastion.port, null)) == "null" || (can(regex("^[0-9]+$", jsonencode(node.bastion.port))) && try(node.bastion.port >= 1 && node.bastion.port <= 65535, false))),
        false
      ) ? null : "is ${local.json[name].bastion}. Allowed: an object with host, user and, if it is not 22, port, or null"
      ssh_host_keys = local.json[name].ssh_host_keys == "null" || (startswith(local.json[name].ssh_host_keys, "[") && try(
        alltrue([for key in node.ssh_host_keys : startswith(jsonencode(key), "\"") && can(regex(local.pattern.host_key, key))]), false
      )) ? null : "is ${local.json[name].ssh_host_keys}. Allowed: a list of public host keys, type and base64 without a comment, or null"
      load_balancers = local.json[name].load_balancers == "null" || (startswith(local.json[name].load_balancers, "{") && try(
        length(setsubtract(keys(node.load_balancers), local.classes)) == 0 &&
        alltrue([for value in values(node.load_balancers) : startswith(jsonencode(value), "\"") && value != ""]), false
      )) ? null : "is ${local.json[name].load_balancers}. Allowed: an object of node class (${join(", ", local.classes)}) -> address or name, or null"
      management = local.json[name].management == "null" || try(
        length(setsubtract(keys(node.management), local.attributes.management)) == 0 && contains(["redfish", "ipmi"], node.management.protocol) &&
        startswith(jsonencode(node.management.address), "\"") && node.management.address != "", false
      ) ? null : "is ${local.json[name].management}. Allowed: an object with protocol (redfish or ipmi) and address, or null"
    }
  ) : "Node ${name}: ${where} ${text}." if text != null]])

  nodes = { for name, node in local.given : name => {
    id         = node.id
    classes    = try(tolist(node.classes), null)
    private_ip = node.private_ip
    public_ip  = node.public_ip
    user       = node.user
    port       = try(tonumber(node.port), null)
    zone       = node.zone
    region     = node.region
    labels     = try(tomap(node.labels), null)
    volumes = try([for volume in node.volumes : {
      name     = tostring(volume.name)
      size_gib = tonumber(volume.size_gib)
      device   = tostring(volume.device)
    }], null)
    bastion = try({
      host = tostring(node.bastion.host)
      user = tostring(node.bastion.user)
      port = try(tonumber(node.bastion.port), null)
    }, null)
    ssh_host_keys  = try([for key in node.ssh_host_keys : tostring(key)], null)
    load_balancers = try(tomap(node.load_balancers), null)
    management     = try({ protocol = tostring(node.management.protocol), address = tostring(node.management.address) }, null)
  } }
}
