# What a cloud root knows of its machines -> their contract, and the site's records in DNS.

locals {
  records = { for record, class in { api = "control", "*" = "edge" } : record => {
    balanced = contains(keys(var.load_balancers), class)
    addresses = contains(keys(var.load_balancers), class) ? [var.load_balancers[class]] : [
      for name, node in var.nodes : try(coalesce(var.public_ips[name], var.private_ips[name]), "") if contains(node.classes, class)
    ]
  } if anytrue([for node in var.nodes : contains(node.classes, class)]) }
}

module "contract" {
  source = "../contract"

  nodes = { for name, node in var.nodes : name => {
    id         = var.ids[name]
    classes    = node.classes
    private_ip = var.private_ips[name]
    public_ip  = var.public_ips[name]
    user       = var.user
    port       = 22
    zone       = var.zones[name]
    region     = var.region
    labels     = node.labels
    volumes = [for volume in node.volumes : {
      name     = volume.name
      size_gib = volume.size_gib
      device   = var.devices["${name}/${volume.name}"]
    }]
    bastion        = var.bastion == null ? null : { host = var.bastion, user = var.user, port = 22 }
    load_balancers = { for class in node.classes : class => var.load_balancers[class] if contains(keys(var.load_balancers), class) }
  } }
}
