# The site file, its stack and the manifests of the components they choose -> what each class of nodes lets in.
# The same decisions as the inventory plugin's (plugins/plugin_utils/site/choice.py, compile.py); tests/unit/terraform_roots holds both equal.

locals {
  repository = coalesce(var.repository, abspath("${path.module}/../../.."))
  folder     = trimsuffix(var.site_folder, "/")
  site_file  = "${local.folder}/20-stack.yml"
  found      = fileexists(local.site_file)
  site       = try(yamldecode(file(local.site_file)), {})
  name       = try(tostring(local.site.site), "")
  domain     = try(tostring(local.site.domain), "")
  stack_name = try(tostring(local.site.stack), "")
  networks = merge([for name in local.components : {
    for network, about in try(local.manifests[name].networks, {}) : network => try(tostring(local.site.networks[network]), about.default)
  }]...)
  admin    = distinct(try([for network in local.site.networks.admin : tostring(network)], ["0.0.0.0/0"]))
  options  = try(local.site.options, {})
  node_all = ["control", "edge", "storage", "worker"]

  # One network holds or overlaps another if both are equal when cut to the shorter prefix.
  outside = [for name, gateway in var.gateways : name if !anytrue([for network in local.admin : try(
    tonumber(split("/", network)[1]) <= tonumber(split("/", gateway)[1]) && cidrsubnet("${split("/", gateway)[0]}/${split("/", network)[1]}", 0, 0) == cidrsubnet(network, 0, 0),
    false
  )])]
  overlapping = [for name, network in local.networks : name if try(
    cidrsubnet("${split("/", network)[0]}/${min(split("/", network)[1], split("/", var.network)[1])}", 0, 0) ==
    cidrsubnet("${split("/", var.network)[0]}/${min(split("/", network)[1], split("/", var.network)[1])}", 0, 0),
    false
  )]

  stack_files = [for place in [local.folder, local.repository] : "${place}/stacks/${local.stack_name}.yml" if fileexists("${place}/stacks/${local.stack_name}.yml")]
  stack_known = local.stack_name != "" && local.stack_name != "slots" && length(local.stack_files) > 0
  stack       = try(yamldecode(file(local.stack_files[0])), {})

  manifests = { for file in fileset(local.repository, "roles/*/meta/component.yml") :
    split("/", file)[1] => yamldecode(file("${local.repository}/${file}"))
  }

  # A choice is one name or a list of names.
  slots = merge(
    { for slot, choice in try(local.stack.slots, {}) : slot => try([for name in choice : tostring(name)], [tostring(choice)]) },
    { for slot, choice in try(local.site.slots, {}) : slot => try([for name in choice : tostring(name)], [tostring(choice)]) },
  )
  wanted = distinct(concat(
    [for name, manifest in local.manifests : name if length(flatten([try(manifest.fills, [])])) == 0],
    flatten(values(local.slots)),
    try([for name in local.site.extras : tostring(name)], []),
  ))
  unknown    = [for name in local.wanted : name if !contains(keys(local.manifests), name)]
  components = sort([for name in local.wanted : name if contains(keys(local.manifests), name)])

  # Networks of containers, whose addresses leave them as those of nodes.
  containers = flatten([for name, manifest in local.manifests : [for network, about in try(manifest.networks, {}) : network if about.kind == "containers"]])

  # Each manifest's class of nodes: where its component runs, and what `from: <component>` means.
  classes = { for name, manifest in local.manifests : name => (
    try(manifest.nodes.class, "all") == "all" ? local.node_all : [manifest.nodes.class]
  ) }

  # A port, or to whom it is open, may be a template of one variable: the site's option, else the role's default.
  variable = "^\\{\\{\\s*([a-z_][a-z0-9_]*)\\s*\\}\\}$"
  values = merge(concat(
    [for name in local.components : try(yamldecode(file("${local.repository}/roles/${name}/defaults/main.yml")), {})],
    [for name in local.components : try({ for key, value in local.options[name] : key => value }, {})],
  )...)
  written = flatten([for name in local.components : [for port in try(local.manifests[name].ports, []) : {
    component = name
    name      = port.name
    text      = can(regex(local.variable, tostring(port.port))) ? try(tostring(local.values[regex(local.variable, tostring(port.port))[0]]), tostring(port.port)) : tostring(port.port)
    protocol  = try(port.protocol, "tcp")
    from = [
      for source in try([for source in port.from : source], local.values[regex(local.variable, port.from)[0]], []) : tostring(source)
    ]
  }]])
  range   = "^[0-9]{1,5}(-[0-9]{1,5})?$"
  unclear = [for port in local.written : port if !can(regex(local.range, port.text))]
  ports = [for port in local.written : {
    component = port.component
    name      = port.name
    port      = port.text
    protocol  = port.protocol
    from      = port.from
  } if can(regex(local.range, port.text))]

  # What every host lets in besides (roles/firewall does the same).
  firewall = {
    extra = try([for port in local.values.firewall_extra_ports : port], [])
  }
  host = concat(
    [{ component = "host", name = "ssh", port = tostring(var.ssh_port), protocol = "tcp", from = [var.bastion ? "bastion" : "admin"], classes = local.node_all }],
    [for port in local.firewall.extra :
      { component = "host", name = port.name, port = tostring(port.port), protocol = try(port.protocol, "tcp"), from = [for source in port.from : tostring(source)], classes = local.node_all }
      if contains(local.components, "firewall")
    ],
    [for number in var.edge_ports :
      { component = "host", name = "edge-${number}", port = tostring(number), protocol = "tcp", from = ["any"], classes = ["edge"] }
    ],
  )
  # Clouds' rules are for TCP and UDP.
  all = concat([for port in local.ports : merge(port, { classes = local.classes[port.component] }) if contains(["tcp", "udp"], port.protocol)], local.host)

  # One entry a class and source: a component that is not chosen has no nodes. Two components that open the same to the same source give one rule.
  opened = flatten([for port in local.all : [for class in port.classes : [for source in port.from : {
    class     = class
    protocol  = port.protocol
    port      = port.port
    component = "${port.component} ${port.name}"
    sources = (
      source == "any" ? ["any"] : source == "admin" ? ["admin"] : source == "bastion" ? ["bastion"] :
      contains(concat(["nodes"], local.containers), source) ? local.node_all : contains(local.components, source) ? local.classes[source] : []
    )
  }]]])
  grouped = { for entry in local.opened : "${entry.class}/${entry.protocol}-${entry.port}" => entry... }
  merged = { for key, entries in local.grouped : key => {
    class      = entries[0].class
    protocol   = entries[0].protocol
    from_port  = tonumber(split("-", entries[0].port)[0])
    to_port    = tonumber(reverse(split("-", entries[0].port))[0])
    components = sort(distinct(entries[*].component))
    sources    = distinct(flatten(entries[*].sources))
  } if length(flatten(entries[*].sources)) > 0 }

  rules = { for class in local.node_all : class => { for key, rule in local.merged : split("/", key)[1] => {
    protocol     = rule.protocol
    from_port    = rule.from_port
    to_port      = rule.to_port
    from_classes = sort([for source in rule.sources : source if contains(local.node_all, source)])
    from_admin   = contains(rule.sources, "admin")
    from_bastion = contains(rule.sources, "bastion")
    from_any     = contains(rule.sources, "any")
    cidrs        = contains(rule.sources, "any") ? ["0.0.0.0/0"] : contains(rule.sources, "admin") ? local.admin : []
    components   = rule.components
  } if rule.class == class } }

  # The same, one entry a source. All four classes are one source, `nodes`, since clouds count rules; anyone includes everyone.
  ingress = merge(flatten([for class, rules in local.rules : [for key, rule in rules : [for source in(
    rule.from_any ? ["0.0.0.0/0"] : concat(
      length(rule.from_classes) == length(local.node_all) ? ["nodes"] : rule.from_classes,
      rule.from_bastion ? ["bastion"] : [],
      rule.cidrs,
    )) : {
    "${class}/${key}/${source}" = {
      class       = class
      protocol    = rule.protocol
      from_port   = rule.from_port
      to_port     = rule.to_port
      source      = can(cidrnetmask(source)) ? null : source
      cidr        = can(cidrnetmask(source)) ? source : null
      description = substr(join(", ", rule.components), 0, 200)
    }
  }]]])...)
}
